"""A table as plain data: what the builders make and the renderers write."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from thanos.reporting.evidence import Evidence
from thanos.reporting.measures import Measure, Observation

GAP = "—"


@dataclass(frozen=True)
class Cell:
    """One number; `text` and `interval` are formatted, `value` and `half_width` are for the CSV."""

    text: str = GAP
    value: float | None = None
    interval: str = ""
    half_width: float | None = None
    best: bool = False
    observations: tuple[Observation, ...] = ()  # that the number is the mean of
    runs: tuple[str, ...] = ()  # that a number is from which is no such mean

    def made_of(self) -> tuple[str, ...]:
        """The runs that the number is from."""
        return self.runs or tuple(dict.fromkeys(seen.run for seen in self.observations))


@dataclass(frozen=True)
class Column:
    """A column under a group heading (a model under a measure, say)."""

    group: str
    name: str


@dataclass(frozen=True)
class Row:
    """One line: the texts of the stub columns, then a cell per column."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]

    def of_runs(self, runs: Iterable[str]) -> "Row":
        """The same row, all of whose numbers are from these runs."""
        unique = tuple(dict.fromkeys(runs))
        filled = (
            replace(cell, runs=unique) if cell.value is not None else cell for cell in self.cells
        )
        return replace(self, cells=tuple(filled))


@dataclass(frozen=True)
class Block:
    """Rows under a common title."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """A titled table; `stub` names the label columns, `footnotes` are whole sentences.

    `best` completes "Bold:", where any cell is marked.
    """

    name: str  # for files and LaTeX labels
    title: str
    stub: tuple[str, ...]
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    footnotes: tuple[str, ...] = ()
    best: str = "best of each block"

    def groups(self) -> list[tuple[str, int]]:
        """Group headings in order, each with its number of columns."""
        found: list[tuple[str, int]] = []
        for column in self.columns:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found

    def select(self, first: int, last: int) -> "Table":
        """The same table with columns [first, last) only."""
        blocks = tuple(
            replace(
                block,
                rows=tuple(replace(row, cells=row.cells[first:last]) for row in block.rows),
            )
            for block in self.blocks
        )
        return replace(self, columns=self.columns[first:last], blocks=blocks)

    def notes(self, mark: str) -> list[str]:
        """The footnotes, after what `mark` (`Bold:`) means if any cell has it."""
        marked = any(cell.best for row in self.rows() for cell in row.cells)
        return [f"{mark} {self.best}.", *self.footnotes] if marked else [*self.footnotes]

    def rows(self) -> Iterator[Row]:
        """All rows of all blocks."""
        for block in self.blocks:
            yield from block.rows


def measured(measure: Measure, mean: dict[Any, Any] | None) -> Cell:
    """The cell of one record of `over_seeds`; None is a gap."""
    if mean is None:
        return Cell()
    value, half_width = float(mean["mean"]), float(mean["interval"])
    observations = tuple(mean.get("observations", ()))
    if math.isnan(half_width):
        return Cell(measure.text(value), value, observations=observations)
    interval = f"{half_width:.{measure.decimals(value)}f}"
    return Cell(measure.text(value), value, interval, half_width, observations=observations)


def mark_best(rows: list[Row], column: int, evidence: Evidence) -> list[Row]:
    """Mark what the evidence puts before all other values of a column at the same sparsity."""
    filled = [row.cells[column].observations for row in rows]
    return [
        _with_mark(row, column) if seen and evidence.best(seen, filled) else row
        for row, seen in zip(rows, filled, strict=True)
    ]


def _with_mark(row: Row, column: int) -> Row:
    cells = list(row.cells)
    cells[column] = replace(cells[column], best=True)
    return replace(row, cells=tuple(cells))
