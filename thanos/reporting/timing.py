"""Pruning times of single layers: a table with ratios, and log-log figures."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import method_label, method_rank, pattern_label
from thanos.reporting.style import COLUMN_WIDTH, house_style, look, new_figure, place_legend

BASELINE_LABELS = {
    "pseudocode-thanos": "Thanos, pseudocode",
    "batched-thanos": "Thanos, pseudocode batched",
    "plain-sparsegpt": "SparseGPT, column by column",
}
_FOOTNOTES = (
    "× pseudocode: how many times faster than Thanos line by line as published, with an explicit "
    "inverse of the trailing block and a sort of the whole residual for every block, and one call "
    "of solve per row. × batched: than the same with a Cholesky inverse, a partial selection, and "
    "padded systems solved 1024 rows at a time.",
    "The range is over n repetitions; CPU s is the processor time of all threads, their waiting "
    "for each other included.",
    "Memory is the peak above the weight and the input statistics, the result included.",
)
_MEBIBYTE = 2**20


def timing_table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Seconds, ratios to the published formulation, memory and growth of every method and layer.

    Args:
        rows: of `thanos.stages.timing.measure`.
        title: what was measured, where and how.
    """
    names = (
        "seconds",
        "range",
        "n",
        "CPU s",
        "× pseudocode",
        "× batched",
        "memory MiB",
        "rel. error",
    )
    columns = tuple(Column("Layer", name) for name in names)
    frame = pd.DataFrame(rows)
    blocks = []
    for (pattern, size), group in frame.groupby(["pattern", "block_size"], sort=False):
        for (c, b), layer in group.groupby(["rows", "columns"], sort=False):
            heading = f"{c} × {b}, {pattern_label(str(pattern)).title}, B = {size}"
            ordered = sorted(layer.to_dict("records"), key=_rank)
            blocks.append(Block(heading, tuple(_row(row) for row in ordered)))
    notes = (*_FOOTNOTES, *_growth_notes(frame))
    return Table("timing", title, ("Method",), columns, tuple(blocks), notes)


def width_figure(rows: Sequence[dict[str, Any]]) -> Figure | None:
    """Seconds over the width of square layers, a panel per pattern and block size; None if none."""
    frame = pd.DataFrame(rows)
    frame = frame[frame["rows"] == frame["columns"]]
    panels = {
        f"{pattern_label(str(pattern)).title}, B = {size}": panel
        for (pattern, size), panel in frame.groupby(["pattern", "block_size"], sort=False)
        if panel["columns"].nunique() > 1
    }
    return _figure(panels, "columns", "layer width (rows = columns)")


def block_size_figure(rows: Sequence[dict[str, Any]]) -> Figure | None:
    """Seconds over the block size, a panel per pattern and layer with several; None if none."""
    panels = {
        f"{pattern_label(str(pattern)).title}, {c} × {b}": panel
        for (pattern, c, b), panel in pd.DataFrame(rows).groupby(
            ["pattern", "rows", "columns"], sort=False
        )
        if panel["block_size"].nunique() > 1
    }
    return _figure(panels, "block_size", "block size B")


def _figure(panels: dict[str, pd.DataFrame], axis: str, label: str) -> Figure | None:
    if not panels:
        return None
    with house_style():
        figure = new_figure(COLUMN_WIDTH * max(1.0, 0.62 * len(panels)), 2.2)
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        handles: dict[str, Any] = {}
        for axes, (title, panel) in zip(grid, panels.items(), strict=True):
            for method in sorted(set(panel["method"]), key=lambda name: _rank({"method": name})):
                line = panel[panel["method"] == method].sort_values(axis)
                if line[axis].nunique() == 1:  # not swept
                    continue
                (drawn,) = axes.plot(line[axis], line["seconds"], **_line(method))
                handles.setdefault(str(drawn.get_label()), drawn)
            ticks = sorted(set(panel[axis]))
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_title(title)
            axes.set_xlabel(label)
        grid[0].set_ylabel("pruning time (s) ↓")
        place_legend(figure, list(handles.values()))
    return figure


def _line(method: str) -> dict[str, Any]:
    if method in BASELINE_LABELS:
        drawn = look(_variant("thanos" if "thanos" in method else "sparsegpt"))
        return {
            "color": drawn.colour,
            "marker": drawn.marker,
            "markersize": 4,
            "markerfacecolor": "white",
            "linestyle": "--" if method.startswith("batched-") else ":",
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
    base = method.rpartition("-")[2]
    return (*method_rank(_variant(base)), method in BASELINE_LABELS, method)


def _row(row: dict[Any, Any]) -> Row:
    method = str(row["method"])
    label = BASELINE_LABELS.get(method) or method_label(_variant(method))
    spread = f"{_seconds(row['seconds_min'])}–{_seconds(row['seconds_max'])}"
    memory = row["peak_memory"] / _MEBIBYTE
    return Row(
        (label,),
        (
            Cell(_seconds(row["seconds"]), row["seconds"]),
            Cell(spread),
            Cell(str(row["repeats"]), row["repeats"]),
            Cell(_seconds(row["processor_seconds"]), row["processor_seconds"]),
            _ratio(row["pseudocode_ratio"]),
            _ratio(row["batched_ratio"]),
            Cell(f"{memory:.0f}", memory),
            Cell(f"{row['relative_error']:.4f}", row["relative_error"]),
        ),
    )


def _ratio(value: float | None) -> Cell:
    if value is None or math.isnan(value):
        return Cell()
    return Cell(f"{value:.1f}", value)


def _growth_notes(frame: pd.DataFrame) -> list[str]:
    grown = frame.dropna(subset=["growth"]).drop_duplicates(["pattern", "block_size", "method"])
    parts = []
    for (pattern, size), group in grown.groupby(["pattern", "block_size"], sort=False):
        exponents = ", ".join(
            f"{row['method']} {row['growth']:.2f}"
            for row in sorted(group.to_dict("records"), key=_rank)
        )
        heading = pattern_label(str(pattern)).title
        which = f"square layers from 1024 columns up ({heading}, B = {size})"
        parts.append(f"Growth exponent of {which}: {exponents}.")
    return parts


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
