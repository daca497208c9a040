"""Methods compared on several calibrations: what each draw of text shows stands by itself."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from thanos.reporting.measures import records

_NONE = "none"
_KEYS = ["calibration", "calibration_windows"]


def calibrations_apart(frame: pd.DataFrame) -> pd.DataFrame:
    """Results or layers, with a model that was pruned on several calibrations as several models.

    `doc-llama on 24 windows` and `doc-llama on 128 windows` get a column or panel each; where the
    texts differ as well, their names are said. Runs without calibration, of the dense model above
    all, are in every one of them; quantised or trained afterwards, where others are so, too.
    """
    parts = [_of_model(rows) for _, rows in frame.groupby("model", sort=False)]
    return pd.concat(parts, ignore_index=True) if parts else frame


def _of_model(rows: pd.DataFrame) -> pd.DataFrame:
    without = rows["calibration"] == _NONE
    found = records(rows.loc[~without, _KEYS].drop_duplicates().sort_values(_KEYS))
    if len(found) < 2:
        return rows
    texts, sizes = ({calibration[key] for calibration in found} for key in _KEYS)
    forms = rows["quantization"].replace("", _NONE) + " " + rows["recovery"]
    parts = []
    for calibration in found:
        name = _name(calibration, len(texts) > 1, len(sizes) > 1)
        same = (rows[_KEYS] == pd.Series(calibration)).all(axis="columns")
        kept = rows[same | (without & forms.isin(forms[same]))]
        parts.append(kept.assign(model=kept["model"] + f" on {name}"))
    return pd.concat([*parts, rows[~forms.isin(forms[~without])]])


def _name(calibration: Mapping[str, Any], with_text: bool, with_size: bool) -> str:
    """Of a calibration beside others: the text, the size, or both."""
    text = [str(calibration["calibration"])] if with_text else []
    count = f"{calibration['calibration_windows']:g} windows"
    return " ".join([*text, count] if with_size else text)
