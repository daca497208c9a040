"""The list of all runs in a report: what distinguishes them, their headline numbers and files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thanos import layout
from thanos.reporting.ablations import axis_text
from thanos.reporting.html import File
from thanos.reporting.labels import method_label, method_rank, pattern_label
from thanos.reporting.measures import Measure, main_measures, records, with_variants
from thanos.reporting.run_files import Listing

# Shown where runs of one method and pattern differ in it.
_OPTIONS = {
    "calibration": "calibration",
    "calibration_windows": "windows",
    "block_size": "B",
    "damping": "λ",
    "mask_metric": "metric",
    "mask_scope": "scope",
    "mask_update": "update",
    "evaluation": "evaluation",
}
# The files that say what a run is and what came out, by the kind of folder.
_FILES = {
    layout.PRUNED: layout.RECORD,
    layout.RECOVERED: layout.RECOVERY,
    layout.EVALUATIONS: layout.EVALUATION,
    layout.LATENCIES: layout.LATENCY,
}
_UP = "../.."  # from a suite's folder to the results


@dataclass(frozen=True)
class ListColumn:
    """A column of the list."""

    name: str
    numeric: bool = False


@dataclass(frozen=True)
class ListCell:
    """A text, and the number that it is sorted by where that is not the text."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class ListRow:
    """A run; `id` is its anchor on the page."""

    id: str
    name: str
    cells: list[tuple[ListColumn, ListCell]]
    files: list[File]
    commands: Mapping[str, str]


@dataclass(frozen=True)
class RunList:
    """All runs, in the order of models, patterns, methods and seeds."""

    columns: list[ListColumn]
    rows: list[ListRow]


def run_list(
    frame: pd.DataFrame, listing: Listing, commands: Mapping[str, Mapping[str, str]]
) -> RunList:
    """The list.

    Args:
        frame: results, of `collect`.
        listing: which run lies where.
        commands: that make each run again, by its name.
    """
    runs = with_variants(frame).drop_duplicates("run").reset_index(drop=True)
    columns = _labels(runs)
    shown = {measure.title: measure for measure in main_measures(frame)}
    shown |= {"sparsity": Measure("sparsity"), "seconds": Measure("seconds")}
    for title, measure in shown.items():
        values = measure.rows(frame).set_index("run")["value"]
        if not values.empty:
            cells = [_number(values.get(run), measure) for run in runs["run"]]
            columns[ListColumn(title, numeric=True)] = cells
    homes = {run["run"]: run for run in listing.runs}
    rows = sorted(range(len(runs)), key=lambda index: _order(records(runs.iloc[[index]])[0]))
    return RunList(
        list(columns),
        [
            ListRow(
                f"run-{number}",
                runs["run"][index],
                [(column, cells[index]) for column, cells in columns.items()],
                _files(homes[runs["run"][index]]),
                commands[runs["run"][index]],
            )
            for number, index in enumerate(rows, 1)
        ],
    )


def _labels(runs: pd.DataFrame) -> dict[ListColumn, list[ListCell]]:
    """The columns that say what a run is."""
    rows = records(runs)
    patterns = [pattern_label(row["pattern"]) for row in rows]
    methods = [method_label(row) for row in rows]
    places = {label: place for place, label in enumerate(sorted(set(patterns)))}
    columns = {
        ListColumn("model"): [ListCell(row["model"]) for row in rows],
        ListColumn("pattern"): [ListCell(label.title, places[label]) for label in patterns],
        ListColumn("method"): [ListCell(label) for label in methods],
    }
    alike = runs.groupby([runs["pattern"], pd.Series(methods)])
    for column, name in _OPTIONS.items():
        if (alike[column].nunique() > 1).any():
            is_number = pd.api.types.is_numeric_dtype(runs[column])
            key: Callable[[Any], float | None] = _key if is_number else lambda value: None
            columns[ListColumn(name, is_number)] = [
                ListCell(axis_text(row[column]), key(row[column])) for row in rows
            ]
    columns[ListColumn("seed", True)] = [ListCell(str(row["seed"]), row["seed"]) for row in rows]
    return columns


def _key(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _number(value: float | None, measure: Measure) -> ListCell:
    return ListCell("") if value is None else ListCell(measure.text(value), float(value))


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["model"], pattern_label(row["pattern"]), method_rank(row), row["seed"], row["run"]


def _files(home: Mapping[str, Any]) -> list[File]:
    return [
        File(kind.removesuffix("s"), f"{_UP}/{kind}/{home[kind]}/{name}")
        for kind, name in _FILES.items()
        if home.get(kind)
    ]
