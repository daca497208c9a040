"""How much of the gap between the reference and the dense model a method closes.

In log perplexity: 0% is plain Thanos, 100% the dense model, negative what is worse than Thanos.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from thanos.reporting.evidence import Evidence
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import (
    DENSE,
    METHOD_NAMES,
    VARIANT_COLUMNS,
    method_label,
    method_rank,
    pattern_label,
)
from thanos.reporting.measures import (
    CONFIDENCE,
    Measure,
    Observation,
    main_measures,
    over_seeds,
    records,
    with_variants,
)

REFERENCE = METHOD_NAMES["thanos"]
# Suites without any of these compare methods as the paper has them: there is no gap to close.
_OPTIONS = (
    *("order", "correction", "channel_permutation", "allocation"),
    "reconstruction_steps",
)
ROW_KEYS = ("pattern", "method", *VARIANT_COLUMNS)


def gap_tables(frame: pd.DataFrame, windows: pd.DataFrame | None = None) -> list[Table]:
    """A table per perplexity, where options of the pruning pass are on: rows as in the main one."""
    return [_table(measure, found) for measure, found in gaps(frame, windows)]


def gaps(
    frame: pd.DataFrame, windows: pd.DataFrame | None
) -> list[tuple[Measure, list[dict[Any, Any]]]]:
    """Per perplexity the rows of all but the reference, with `gap` and `half_width` in percent."""
    frame = with_variants(frame)
    if not any((~frame[option].isin(("", 0.0))).any() for option in _OPTIONS):
        return []
    found = []
    for measure in main_measures(frame):
        if measure.metric == "perplexity":
            evidence = Evidence(measure, windows)
            means = records(over_seeds(measure.rows(frame), ["model", *ROW_KEYS]))
            rows = [with_gap for row in means if (with_gap := _closed(row, means, evidence))]
            found += [(measure, rows)] if rows else []
    return found


def _closed(
    row: dict[Any, Any], means: Sequence[dict[Any, Any]], evidence: Evidence
) -> dict[Any, Any] | None:
    of_model = [other for other in means if other["model"] == row["model"]]
    dense = next((other for other in of_model if other["pattern"] == DENSE), None)
    reference = next(
        (
            other
            for other in of_model
            if other["pattern"] == row["pattern"] and method_label(other) == REFERENCE
        ),
        None,
    )
    if dense is None or reference is None or row is reference:
        return None
    difference = evidence.difference(row["observations"], reference["observations"])
    width = _mean_log(reference["observations"]) - math.log(dense["mean"])
    if difference is None or width <= 0:
        return None
    shares = {"gap": -100 * difference.mean / width, "half_width": 100 * difference.half_width}
    shares["half_width"] /= width
    return {**row, **shares, "supported": difference.supported, "reference": reference}


def _mean_log(observations: Sequence[Observation]) -> float:
    return float(np.mean([math.log(seen.value) for seen in observations]))


def key_of(row: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("model", *ROW_KEYS))


def _table(measure: Measure, found: list[dict[Any, Any]]) -> Table:
    models = list(dict.fromkeys(row["model"] for row in found))
    cells = {key_of(row): _cell(row) for row in found}
    blocks = []
    for pattern in sorted({row["pattern"] for row in found}, key=pattern_label):
        rows = {key_of(row)[1:]: row for row in found if row["pattern"] == pattern}
        body = [
            Row(
                (method_label(rows[key]),),
                tuple(cells.get((model, *key), Cell()) for model in models),
            )
            for key in sorted(rows, key=lambda key: method_rank(rows[key]))
        ]
        blocks.append(Block(pattern_label(pattern).title, tuple(body)))
    note = (
        f"Share of the difference in log perplexity between {REFERENCE} and the dense model, in "
        f"percent: 100 is the dense model's, below zero is worse than {REFERENCE}. ± is the "
        f"{CONFIDENCE:.0%} interval (Student t) of the paired difference to {REFERENCE}, over "
        "seeds where several are shared, otherwise over the evaluation windows."
    )
    return Table(
        f"gap-{measure.dataset}",
        f"Gap between {REFERENCE} and the dense model that is closed",
        ("Method",),
        tuple(Column(f"{measure.dataset} (%)", model) for model in models),
        tuple(blocks),
        (note,),
        "the interval leaves zero out",
    )


def _cell(row: dict[Any, Any]) -> Cell:
    observed = (*row["observations"], *row["reference"]["observations"])
    text, gap = f"{row['gap']:+.1f}", float(row["gap"])
    if math.isnan(row["half_width"]):
        return Cell(text, gap, observations=observed)
    half_width = float(row["half_width"])
    return Cell(text, gap, f"{half_width:.1f}", half_width, bool(row["supported"]), observed)
