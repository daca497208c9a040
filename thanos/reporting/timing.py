"""Pruning times of single layers: a table with ratios, and a log-log figure over the width."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import method_label, method_rank, pattern_label
from thanos.reporting.style import COLUMN_WIDTH, house_style, look, new_figure

BASELINE_LABELS = {
    "naive-thanos": "Thanos, pseudocode",
    "plain-sparsegpt": "SparseGPT, column by column",
}
_MEBIBYTE = 2**20


def timing_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Seconds, ratio to the naive pseudocode, memory and growth of every method and shape.

    Args:
        rows: of `thanos.timing.measure.time_layer`, with `ratio` and `growth` where known.
        title: what was measured, where and how.
    """
    columns = tuple(
        Column("Layer", name)
        for name in ("seconds", "range", "× pseudocode", "memory MiB", "rel. error")
    )
    frame = pd.DataFrame(rows)
    blocks = []
    for (pattern, size), group in frame.groupby(["pattern", "block_size"], sort=False):
        for (c, b), layer in group.groupby(["rows", "columns"], sort=False):
            heading = f"{c} × {b}, {pattern_label(str(pattern)).title}, B = {size}"
            ordered = sorted(layer.to_dict("records"), key=_rank)
            blocks.append(Block(heading, tuple(_row(row) for row in ordered)))
    return Table("timing", title, ("Method",), columns, tuple(blocks), tuple(_growth_notes(frame)))


def timing_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Seconds over the layer's width, both logarithmic; a panel per pattern, square layers only."""
    frame = pd.DataFrame(rows)
    frame = frame[frame["rows"] == frame["columns"]]
    patterns = list(dict.fromkeys(zip(frame["pattern"], frame["block_size"], strict=True)))
    with house_style():
        figure = new_figure(COLUMN_WIDTH * max(1.0, 0.62 * len(patterns)), 2.4)
        grid = figure.subplots(1, len(patterns), squeeze=False, sharey=True)[0]
        for axes, (pattern, size) in zip(grid, patterns, strict=True):
            panel = frame[(frame["pattern"] == pattern) & (frame["block_size"] == size)]
            for method in sorted(set(panel["method"]), key=lambda name: _rank({"method": name})):
                line = panel[panel["method"] == method].sort_values("columns")
                axes.plot(line["columns"], line["seconds"], **_line(method))
            widths = sorted(set(panel["columns"]))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(widths, [str(width) for width in widths])
            axes.minorticks_off()
            axes.set_title(f"{pattern_label(pattern).title}, B = {size}")
            axes.set_xlabel("layer width (rows = columns)")
        grid[0].set_ylabel("pruning time, seconds (lower is better)")
        ours = [row for row in frame.to_dict("records") if row["method"] not in BASELINE_LABELS]
        handles = [line for line in grid[0].get_lines() if str(line.get_label())[0] != "_"]
        if ours and handles:
            figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _line(method: str) -> dict[str, Any]:
    if method in BASELINE_LABELS:
        drawn = look(_variant("thanos" if "thanos" in method else "sparsegpt"))
        return {
            "color": drawn.colour,
            "marker": drawn.marker,
            "markersize": 4,
            "markerfacecolor": "white",
            "linestyle": ":",
            "label": BASELINE_LABELS[method],
        }
    drawn = look(_variant(method))
    return {
        "color": drawn.colour,
        "marker": drawn.marker,
        "markersize": 4,
        "label": f"{drawn.label}, ours",
    }


def _variant(method: str) -> dict[str, Any]:
    return {"method": method, "outlier_fraction": 0.0}


def _rank(row: dict[Any, Any]) -> tuple[Any, ...]:
    method = str(row["method"])
    base = method.removeprefix("naive-").removeprefix("plain-")
    return (*method_rank(_variant(base)), method in BASELINE_LABELS)


def _row(row: dict[Any, Any]) -> Row:
    method = str(row["method"])
    label = BASELINE_LABELS.get(method) or method_label(_variant(method))
    ratio = row.get("ratio")
    known = ratio is not None and not pd.isna(ratio)
    spread = f"{_seconds(row['seconds_min'])}–{_seconds(row['seconds_max'])}"
    memory = row["peak_memory"] / _MEBIBYTE
    return Row(
        (label,),
        (
            Cell(_seconds(row["seconds"]), row["seconds"]),
            Cell(spread),
            Cell(f"{ratio:.1f}", ratio) if known else Cell(),
            Cell(f"{memory:.0f}", memory),
            Cell(f"{row['relative_error']:.4f}", row["relative_error"]),
        ),
    )


def _growth_notes(frame: pd.DataFrame) -> list[str]:
    if "growth" not in frame:
        return []
    grown = frame.dropna(subset=["growth"]).drop_duplicates(["pattern", "block_size", "method"])
    parts = []
    for (pattern, size), group in grown.groupby(["pattern", "block_size"], sort=False):
        exponents = ", ".join(
            f"{row['method']} {row['growth']:.2f}"
            for row in sorted(group.to_dict("records"), key=_rank)
        )
        heading = pattern_label(str(pattern)).title
        parts.append(f"Growth exponent of square layers ({heading}, B = {size}): {exponents}.")
    return parts


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
