"""Published perplexities and accuracies beside ours: the files and the matching of cells."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, pattern_label
from thanos.reporting.measures import records

ACCURACY_COLUMNS = ("source", "model", "task", "metric", "questions", "accuracy", "tolerance")
COLUMNS = ("source", "context", "model", "method", "pattern", "perplexity")
_WIKITEXT2 = ("wikitext2", "wikitext-2", "wikitext")


@dataclass(frozen=True)
class Published:
    """One published value and where it is from."""

    perplexity: float
    source: str


@dataclass(frozen=True)
class PublishedAccuracy:
    """A dense model's accuracy on all questions of a task's split.

    Attributes:
        metric: `acc`, or `acc_norm` by the choices' lengths.
        questions: how many there are.
        accuracy: in percent.
        tolerance: percentage points by which ours may be off.
        source: where it is from.
    """

    metric: str
    questions: int
    accuracy: float
    tolerance: float
    source: str


@dataclass(frozen=True)
class PublishedTable:
    """WikiText-2 perplexities by (model, context, pattern, method, α); the first source wins.

    Attributes:
        values: these perplexities.
        accuracies: of dense models, by (model, task).
    """

    values: dict[tuple[str, int, str, str, float], Published]
    accuracies: dict[tuple[str, str], PublishedAccuracy] = field(default_factory=dict)

    def accuracy(self, model: str, model_path: str, task: str) -> PublishedAccuracy | None:
        """A dense model's accuracy on a task; the model is known as in `find`."""
        found = (self.accuracies.get((_model_key(n), task)) for n in (model_path, model))
        return next(filter(None, found), None)

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


def read_published(path: Path | str, accuracies: Path | str | None = None) -> PublishedTable:
    """Read the CSV with `COLUMNS`; methods may end in `-a<α>`. Raises UserError with the line.

    `accuracies` is another one, with `ACCURACY_COLUMNS`.
    """
    frame = _read(path, COLUMNS)
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
    return PublishedTable(values, _read_accuracies(accuracies) if accuracies else {})


def _read_accuracies(path: Path | str) -> dict[tuple[str, str], PublishedAccuracy]:
    values: dict[tuple[str, str], PublishedAccuracy] = {}
    for number, row in enumerate(records(_read(path, ACCURACY_COLUMNS)), start=2):
        try:
            value = PublishedAccuracy(
                row["metric"],
                int(row["questions"]),
                float(row["accuracy"]),
                float(row["tolerance"]),
                row["source"],
            )
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        values.setdefault((_model_key(row["model"]), row["task"]), value)
    return values


def _read(path: Path | str, columns: Iterable[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read published values ({error})") from None
    if missing := set(columns) - set(frame.columns):
        raise UserError(f"{path}: no column {', '.join(sorted(missing))}")
    return frame


def is_wikitext2(dataset: str) -> bool:
    """Whether a corpus name means WikiText-2, the only corpus of the published values."""
    return dataset.lower().replace("_", "-") in _WIKITEXT2


def _model_key(name: object) -> str:
    return str(name).rstrip("/").rsplit("/", 1)[-1].lower()
