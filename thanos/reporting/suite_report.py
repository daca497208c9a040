"""The report of a suite: one HTML file with its tables, figures and runs, and how each was made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from thanos import layout
from thanos.artifacts import read_json
from thanos.reporting.grid import Table
from thanos.reporting.html import File, page, svg_source
from thanos.reporting.labels import DENSE, method_label, pattern_label
from thanos.reporting.measures import records, with_variants
from thanos.reporting.run_files import Listing
from thanos.reporting.run_list import run_list

_MAIN = "main"
_KINDS = (
    "unstructured",
    "structured",
    "heads-neurons",
    "nm",
)  # in the names of an ablation's tables
_TABLE_SUFFIXES = ("csv", "md", "tex", "txt", "html")
_FIGURE_SUFFIXES = ("svg", "png", "pdf")
_DATA = ("results.csv", "layers.csv", "windows.csv", "runs.json", "origin.json")


@dataclass(frozen=True)
class Commands:
    """What to type: for the suite as a whole by name, for each run by its name and kind."""

    suite: Mapping[str, str]
    runs: Mapping[str, Mapping[str, str]]


@dataclass
class _Figure:
    """A figure of the page, and the sections whose numbers it draws."""

    id: str
    heading: str
    caption: str
    source: str
    files: list[File]
    tables: list["_Section"]


@dataclass
class _Section:
    """A table of the page, the figures below it, and all that draw it."""

    id: str
    heading: str
    table: Table | None = None
    files: list[File] = field(default_factory=list)
    figures: list[_Figure] = field(default_factory=list)
    drawn: list[_Figure] = field(default_factory=list)


def suite_report(
    suite: Path,
    listing: Listing,
    frame: pd.DataFrame,
    tables: Sequence[Table],
    origin: Mapping[str, Sequence[str]],
    commands: Commands,
) -> str:
    """The page. Its links lead to files beside it and elsewhere in the results folder.

    Args:
        suite: its folder, with `tables/` and `figures/`.
        listing: its runs.
        frame: its results, of `collect`.
        tables: of `suite_tables`, the main one first.
        origin: where its results are from, of `Conditions.origin`.
        commands: that make it again.
    """
    runs = run_list(frame, listing, commands.runs)
    facts = {**_grid(frame), **{name: "; ".join(values) for name, values in origin.items()}}
    return page(
        "report",
        title=listing.title,
        lead=f"{facts['Runs']}.",
        sections=_sections(suite, listing.title, tables),
        anchors={row.name: row.id for row in runs.rows},
        runs=runs,
        facts=facts,
        commands=commands.suite,
        files=[File(name, name) for name in _DATA if (suite / name).is_file()],
    )


def _sections(suite: Path, title: str, tables: Sequence[Table]) -> list[_Section]:
    """The tables in their order, each figure below the first table that it draws."""
    sections = []
    for number, table in enumerate(tables, 1):
        heading = table.title.removeprefix(title).removeprefix(": ") or "Main table"
        files = _files(suite, "tables", table.name, _TABLE_SUFFIXES)
        sections.append(_Section(f"table-{number}", _sentence(heading), table, files))
    captions = read_json(suite / "figures" / layout.CAPTIONS)
    for number, name in enumerate(sorted(captions, key=_after_main), 1):
        draws = [s for s in sections if s.table and _draws(captions[name]["table"], s.table.name)]
        figure = _Figure(
            f"figure-{number}",
            f"Figure {number}",
            captions[name]["caption"],
            svg_source(suite / "figures" / f"{name}.svg"),
            _files(suite, "figures", name, _FIGURE_SUFFIXES),
            draws,
        )
        for section in draws:
            section.drawn.append(figure)
        if not draws:
            draws = [_Section(f"figures-{number}", f"Figure {number}")]
            sections += draws
        draws[0].figures.append(figure)
    return sections


def _draws(drawn: str, table: str) -> bool:
    """Whether a figure of the numbers that stand in the table `drawn` draws this table."""
    combined = table == _MAIN and drawn.startswith(f"{_MAIN}-")
    return combined or table in (drawn, *(f"{drawn}-{kind}" for kind in _KINDS))


def _files(suite: Path, folder: str, name: str, suffixes: Iterable[str]) -> list[File]:
    files = [f"{folder}/{name}.{suffix}" for suffix in suffixes]
    return [File(Path(file).suffix[1:], file) for file in files if (suite / file).is_file()]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _after_main(name: str) -> bool:
    return not name.startswith(_MAIN)


def _grid(frame: pd.DataFrame) -> dict[str, str]:
    """The values that the runs take in what distinguishes them."""
    runs = with_variants(frame).drop_duplicates("run")
    pruned = runs[runs["pattern"] != DENSE]
    facts = {
        "Runs": f"{len(runs)} runs, of which {len(runs) - len(pruned)} of dense models",
        "Models": _listed(f"{row['model']} ({row['model_path']})" for row in records(runs)),
        "Methods": _listed(method_label(row) for row in records(runs)),
        "Patterns": _listed(pattern_label(text).title for text in sorted(pruned["pattern"])),
    }
    columns = {
        "Calibration": "calibration",
        "Calibration windows": "calibration_windows",
        "Seeds": "seed",
        "Block size B": "block_size",
        "Damping λ": "damping",
        "Evaluation": "evaluation",
    }
    for name, column in columns.items():
        values = sorted(
            value for value in pruned[column].unique() if value == value and value != ""
        )
        facts[name] = _listed(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return {name: text for name, text in facts.items() if text}


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
