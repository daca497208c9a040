"""Times of whole prunings: a table by part, beside what their arithmetic alone would take."""

from collections.abc import Sequence
from typing import Any

from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.parts import PARTS

_FOOTNOTES = (
    "× limit: seconds over what the operations of today's code take at the rate of square products "
    "in float32 that were measured before and after each pruning, in its process; by the clock on "
    "the wall, and by processor time (CPU), of which a busy machine changes little.",
    "Operations are counted while the code runs: products, attention, factorisations.",
)


def prunings_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Seconds of every code and pruning, whole and by part, and ratios to the arithmetic's limit.

    Args:
        rows: of `thanos.timing.whole.summary`, with `pruning` and `code`.
        title: what was measured, where and how.
    """
    columns = (
        *(Column("Whole", name) for name in ("seconds", "CPU s", "× limit", "× limit, CPU")),
        *(Column("Seconds by part", name) for name in PARTS),
    )
    blocks = []
    for pruning in dict.fromkeys(row["pruning"] for row in rows):
        own = [row for row in rows if row["pruning"] == pruning]
        rate = max(row["products_per_second"] for row in own)
        heading = (
            f"{pruning}: {own[0]['operations'] / 1e12:.2f} · 10¹² operations, "
            f"{rate / 1e9:.0f} · 10⁹ per second"
        )
        blocks.append(Block(heading, tuple(_row(row) for row in own)))
    return Table("prunings", title, ("Code",), columns, tuple(blocks), _FOOTNOTES)


def _row(row: dict[str, Any]) -> Row:
    whole = [
        Cell(f"{row['seconds']:.1f}", row["seconds"]),
        Cell(f"{row['processor_seconds']:.1f}", row["processor_seconds"]),
        *(Cell(f"{row[key]:.2f}", row[key]) for key in ("limit_ratio", "processor_limit_ratio")),
    ]
    parts = [row["parts"].get(name) for name in PARTS]
    cells = [Cell() if seconds is None else Cell(f"{seconds:.1f}", seconds) for seconds in parts]
    return Row((row["code"],), (*whole, *cells))
