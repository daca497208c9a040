"""A table as Markdown, CSV or text for a terminal."""

import csv
import io
import textwrap
from itertools import zip_longest

from thanos.reporting.grid import Cell, Table
from thanos.reporting.panels import (
    GAP_BETWEEN,
    cut_panels,
    plain_cell,
    widths_of,
    with_short_labels,
)

TERMINAL_WIDTH = 80
_LABEL = 40


def to_markdown(table: Table) -> str:
    """A pipe table with its title and footnotes; the best values in bold."""
    heads = [*table.stub, *(f"{column.group}<br>{column.name}" for column in table.columns)]
    rule = ["---"] * len(table.stub) + ["---:"] * len(table.columns)
    lines = [heads, rule]
    for block in table.blocks:
        lines.append([f"**{block.title}**", *[""] * (len(heads) - 1)])
        for row in block.rows:
            lines.append([*row.labels, *map(_markdown_cell, row.cells)])
    body = "\n".join(
        "| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines
    )
    notes = "\n".join(f"- {note}" for note in table.notes("Bold:"))
    return f"**{table.title}**\n\n{body}\n" + (f"\n{notes}\n" if notes else "")


def to_csv(table: Table) -> str:
    """Full-precision values: `block`, the stub, then the columns; gaps are empty.

    A column with an interval is followed by its half width.
    """
    with_interval = [
        any(row.cells[index].half_width is not None for row in table.rows())
        for index in range(len(table.columns))
    ]
    heads = ["block", *table.stub]
    for column, has_interval in zip(table.columns, with_interval, strict=True):
        name = f"{column.group}: {column.name}"
        heads += [name, f"{name} ±"] if has_interval else [name]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(heads)
    for block in table.blocks:
        for row in block.rows:
            numbers: list[float | None] = []
            for cell, has_interval in zip(row.cells, with_interval, strict=True):
                numbers += [cell.value, cell.half_width] if has_interval else [cell.value]
            writer.writerow(
                [block.title, *row.labels, *("" if n is None else repr(n) for n in numbers)]
            )
    return output.getvalue()


def to_terminal(table: Table) -> str:
    """Fixed-width text that a terminal holds, in panels where needed; `*` marks the best."""

    def fits(panel: Table) -> bool:
        return len(_terminal_lines(panel)[0]) <= TERMINAL_WIDTH

    parts = []
    for panel in cut_panels(with_short_labels(table, _LABEL), fits):
        parts.append("\n".join(line.rstrip()[:TERMINAL_WIDTH] for line in _terminal_lines(panel)))
    text = "\n".join(
        textwrap.fill(note, TERMINAL_WIDTH, subsequent_indent="  ") for note in table.notes("*")
    )
    title = textwrap.fill(table.title, TERMINAL_WIDTH)
    return "\n\n".join(filter(None, (title, *parts, text))) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ± {cell.interval}" if cell.interval else text


def _terminal_cell(cell: Cell) -> str:
    return f"{plain_cell(cell)}{'*' if cell.best else ' '}"


def _terminal_lines(table: Table) -> list[str]:
    """Lines of equal meaning to a panel; the first is a rule as long as the longest line."""
    stubs, widths, headings = widths_of(table, _terminal_cell)
    height, place = max(map(len, headings)), 0
    for heading, (_, count) in zip(headings, table.groups(), strict=True):
        span = sum(widths[place : place + count]) + GAP_BETWEEN * (count - 1)
        # Wrapped headings stand on the names below them.
        heading[:] = [text.rjust(span) for text in [""] * (height - len(heading)) + heading]
        place += count
    gap = " " * GAP_BETWEEN

    def line(labels: list[str], cells: list[str]) -> str:
        left = [text.ljust(size) for text, size in zip(labels, stubs, strict=True)]
        return gap.join(
            [*left, *(text.rjust(size) for text, size in zip(cells, widths, strict=True))]
        )

    blank = [" " * size for size in stubs]
    heads = [gap.join([*blank, *parts]) for parts in zip(*headings, strict=True)]
    names = line(list(table.stub), [f"{column.name} " for column in table.columns])
    rule = "-" * len(names)
    lines = [rule, *heads, names, rule]
    for block in table.blocks:
        lines.append(block.title)
        for row in block.rows:
            cells = list(map(_terminal_cell, row.cells))
            for labels in zip_longest(*(label.split("\n") for label in row.labels), fillvalue=""):
                lines.append(line(list(labels), cells))
                cells = [""] * len(cells)
    return [*lines, rule]
