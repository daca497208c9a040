"""The page of all suites of a results folder: how each stands, its headline numbers, links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from thanos.artifacts import read_json, verify_text
from thanos.errors import UserError
from thanos.reporting.frame import OtherColumnsError, from_csv
from thanos.reporting.grid import GAP
from thanos.reporting.html import File, page
from thanos.reporting.labels import DENSE, method_label, pattern_label
from thanos.reporting.measures import Measure, main_measures, records, with_variants

_MOST_LINES = 8  # of a suite
_FILES = ("report.html", "results.csv", "tables", "figures", "runs.json", "origin.json")


@dataclass(frozen=True)
class SuiteEntry:
    """What the page says of a suite; `commands` remake and verify it."""

    name: str
    title: str
    state: str
    reason: str
    commands: Mapping[str, str]
    facts: str
    headlines: list[list[str]]
    left_out: int  # headlines beyond those
    files: list[File]

    @property
    def report(self) -> File | None:
        """Its report, if there is one."""
        return next((file for file in self.files if file.name == "report.html"), None)


def suite_entry(
    suite: Path, title: str, state: str, reason: str, commands: Mapping[str, str]
) -> SuiteEntry:
    """The entry of the suite in this folder, with as much as can be read of its results."""
    headlines, facts = [], ""
    try:
        verify_text(suite / "results.csv")
        frame = from_csv((suite / "results.csv").read_text(encoding="utf-8"))
        headlines = _headlines(frame)
        facts = _facts(frame, read_json(suite / "origin.json", sealed=True)["origin"])
    except (OtherColumnsError, KeyError, ValueError) as error:
        if state == "current":
            state, reason = "damaged", f"results.csv: {error}"
        facts = "Its results.csv has other columns than this source reads."
    except UserError as error:
        if state != "incomplete":
            state, reason = "damaged", str(error)
    return SuiteEntry(
        suite.name,
        title,
        state,
        reason,
        commands,
        facts,
        headlines[:_MOST_LINES],
        max(0, len(headlines) - _MOST_LINES),
        [File(name, f"suites/{suite.name}/{name}") for name in _FILES if (suite / name).exists()],
    )


def overview(entries: Sequence[SuiteEntry]) -> str:
    """The page, to lie in the results folder itself."""
    return page("index", title="All suites", suites=entries)


def _headlines(frame: pd.DataFrame) -> list[list[str]]:
    """By measure and model: the dense model, the best and the worst of the pruned runs."""
    frame = with_variants(frame)
    lines = []
    for measure in main_measures(frame):
        for model, rows in measure.rows(frame).groupby("model", sort=False):
            dense = rows.loc[rows["pattern"] == DENSE, "value"]
            text = GAP if dense.empty else measure.text(dense.iloc[0])
            pruned = rows[rows["pattern"] != DENSE].sort_values("value", kind="stable")
            ends = [_named(row, measure) for row in records(pruned)] or [GAP]
            if measure.higher_is_better:
                ends.reverse()
            lines.append([measure.title, str(model), text, ends[0], ends[-1]])
    return lines


def _named(row: dict[str, Any], measure: Measure) -> str:
    label = f"{method_label(row)}, {pattern_label(row['pattern']).title}"
    return f"{measure.text(row['value'])} ({label})"


def _facts(frame: pd.DataFrame, origin: Mapping[str, Sequence[str]]) -> str:
    revisions = ", ".join(text[:12] if " " not in text else text for text in origin["Revision"])
    times = f"{origin['From'][0]} to {origin['To'][0]}"
    return f"{frame['run'].nunique()} runs, {times}, revision {revisions}."
