"""Tables as text of some width: how wide their columns are, and how they are cut to fit."""

import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace

from thanos.reporting.grid import Cell, Table

GAP_BETWEEN = 2  # characters
_ARROW = re.compile(" ([↓↑])")


def cut_panels(table: Table, fits: Callable[[Table], bool]) -> Iterator[Table]:
    """Cut a wide table into panels that fit, between groups of columns where possible."""
    ends = set(itertools.accumulate(count for _, count in table.groups()))
    first, total = 0, len(table.columns)
    while first < total:
        last = first + 1
        while last < total and fits(table.select(first, last + 1)):
            last += 1
        last = max((end for end in ends if first < end <= last), default=last)
        yield table.select(first, last)
        first = last


def with_short_labels(table: Table, most: int) -> Table:
    """The table with the labels of its rows in lines of so many characters."""

    def lines(label: str) -> str:
        return "\n".join(textwrap.wrap(label, most, subsequent_indent="  ")) or label

    blocks = [
        replace(
            block, rows=tuple(replace(r, labels=tuple(map(lines, r.labels))) for r in block.rows)
        )
        for block in table.blocks
    ]
    return replace(table, blocks=tuple(blocks))


def widths_of(
    table: Table, text: Callable[[Cell], str]
) -> tuple[list[int], list[int], list[list[str]]]:
    """Characters of the stub columns and of the others, and the lines of the group headings.

    Headings are wrapped at their columns, which are as wide as the longest word needs.
    """
    rows = list(table.rows())
    stubs = [
        max(len(name), *(len(line) for row in rows for line in row.labels[index].split("\n")))
        for index, name in enumerate(table.stub)
    ]
    mark = len(text(Cell("")))  # of the best
    widths = [
        max(len(column.name) + mark, *(len(text(row.cells[index])) for row in rows))
        for index, column in enumerate(table.columns)
    ]
    headings, place = [], 0
    for title, count in table.groups():
        span = sum(widths[place : place + count]) + GAP_BETWEEN * (count - 1)
        words = _ARROW.sub("\N{NO-BREAK SPACE}\\1", title)  # no line has an arrow alone
        lacking = max(max(map(len, words.split(" "))) - span, 0)
        widths[place] += lacking
        lines = textwrap.wrap(words, span + lacking)
        headings.append([line.replace("\N{NO-BREAK SPACE}", " ") for line in lines])
        place += count
    return stubs, widths, headings


def plain_cell(cell: Cell) -> str:
    return f"{cell.text} ± {cell.interval}" if cell.interval else cell.text
