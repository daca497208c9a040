"""Times of whole prunings: a table by part, beside what their arithmetic alone would take."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.parts import PARTS

# By column: the row's key, and how its value is written. A column that no row fills is left out.
_WHOLE: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("seconds", "{:.1f}".format),
    "CPU s": ("processor_seconds", "{:.1f}".format),
    "× limit": ("limit_ratio", "{:.2f}".format),
    "× limit, CPU": ("processor_limit_ratio", "{:.2f}".format),
    "busy": ("busy_share", "{:.0%}".format),
    "peak, GiB": ("peak_memory_bytes", lambda size: f"{size / 2**30:.1f}"),
}
_FOOTNOTES = {
    "limit_ratio": (
        "× limit: seconds over what the operations of today's code take at the rate of square "
        "products in float32 that were measured before and after each pruning, in its process; by "
        "the clock on the wall, and by processor time (CPU), of which a busy machine changes "
        "little.",
        "Operations are counted while the code runs: products, attention, factorisations.",
    ),
    "busy_share": ("busy: share of the seconds in which the device computed, by its driver.",),
}


def prunings_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Seconds of every code and pruning, whole and by part, and ratios to the arithmetic's limit.

    Args:
        rows: of `thanos.timing.whole.summary`, with `pruning` and `code`.
        title: what was measured, where and how.
    """
    filled = {key for row in rows for key, value in row.items() if value is not None}
    whole = {name: how for name, how in _WHOLE.items() if how[0] in filled}
    columns = (
        *(Column("Whole", name) for name in whole),
        *(Column("Seconds by part", name) for name in PARTS),
    )
    blocks = []
    for pruning in dict.fromkeys(row["pruning"] for row in rows):
        own = [row for row in rows if row["pruning"] == pruning]
        heading = pruning
        if operations := own[0]["operations"]:
            rate = max(row["products_per_second"] for row in own)
            heading += (
                f": {operations / 1e12:.2f} · 10¹² operations, {rate / 1e9:.0f} · 10⁹ per second"
            )
        lines = (Row((row["code"],), _cells(row, whole.values())) for row in own)
        blocks.append(Block(heading, tuple(lines)))
    footnotes = (note for key, notes in _FOOTNOTES.items() if key in filled for note in notes)
    return Table("prunings", title, ("Code",), columns, tuple(blocks), tuple(footnotes))


def _cells(
    row: dict[str, Any], whole: Iterable[tuple[str, Callable[[float], str]]]
) -> tuple[Cell, ...]:
    parts = ((row["parts"].get(name), "{:.1f}".format) for name in PARTS)
    values = [*((row[key], written) for key, written in whole), *parts]
    return tuple(
        Cell() if value is None else Cell(written(value), value) for value, written in values
    )
