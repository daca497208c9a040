"""Published perplexities beside ours: the file and the matching of cells."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, pattern_label
from thanos.reporting.measures import records

COLUMNS = ("source", "context", "model", "method", "pattern", "perplexity")
_WIKITEXT2 = ("wikitext2", "wikitext-2", "wikitext")


@dataclass(frozen=True)
class Published:
    """One published value and where it is from."""

    perplexity: float
    source: str


@dataclass(frozen=True)
class PublishedTable:
    """WikiText-2 perplexities by (model, context, pattern, method, α); the first source wins."""

    values: dict[tuple[str, int, str, str, float], Published]

    def find(
        self, model: str, model_path: str, context: float, pattern: str, method: str, alpha: float
    ) -> Published | None:
        """The value of the same cell with the same window length, or None: never a near match.

        A model is known by the last part of its path (a local copy of the hub's folder counts) or
        by its configured name.
        """
        if pd.isna(context):
            return None
        method = DENSE if pattern == DENSE else method
        alpha = 0.0 if pattern == DENSE else alpha
        for name in (_model_key(model_path), _model_key(model)):
            value = self.values.get((name, int(context), pattern, method, round(alpha, 9)))
            if value is not None:
                return value
        return None


def read_published(path: Path | str) -> PublishedTable:
    """Read the CSV with `COLUMNS`; methods may end in `-a<α>`. Raises UserError with the line."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read published values ({error})") from None
    if missing := set(COLUMNS) - set(frame.columns):
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}")
    values: dict[tuple[str, int, str, str, float], Published] = {}
    for number, row in enumerate(records(frame), start=2):
        method, _, alpha = row["method"].partition("-a")
        try:
            pattern = pattern_label(row["pattern"]).text
            key = (
                _model_key(row["model"]),
                int(row["context"]),
                pattern,
                method,
                float(alpha or 0),
            )
            value = float(row["perplexity"])
        except (UserError, ValueError) as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        values.setdefault(key, Published(value, row["source"]))
    return PublishedTable(values)


def is_wikitext2(dataset: str) -> bool:
    """Whether a corpus name means WikiText-2, the only corpus of the published values."""
    return dataset.lower().replace("_", "-") in _WIKITEXT2


def _model_key(name: object) -> str:
    return str(name).rstrip("/").rsplit("/", 1)[-1].lower()
