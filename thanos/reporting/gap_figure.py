"""The gap to the dense model that a method closes, over the time that pruning takes."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from thanos.reporting.gap import ROW_KEYS, gaps, key_of
from thanos.reporting.labels import (
    VARIANT_COLUMNS,
    method_rank,
    own_label,
    pattern_label,
    variant_options,
)
from thanos.reporting.measures import Measure, over_seeds, records, with_variants
from thanos.reporting.style import (
    COLUMN_WIDTH,
    house_style,
    look,
    new_figure,
    panel_title,
    place_legend,
)

_PANEL_HEIGHT = 1.9  # inches
_CHARACTERS = 64  # of a panel's width, in small print
# Points: of the small print between title and panel.
_NOTE_SIZE, _NOTE_LINE, _TITLE_PAD = 6, 1.3, 3.0
_WORST = -30.0  # percent: what is worse is below the panel


def gap_figures(frame: pd.DataFrame) -> list[tuple[Measure, Figure]]:
    """A figure per perplexity: the gap closed over pruning time, a panel per pattern and model.

    The reference is in it, at zero.
    """
    seconds = with_variants(Measure("seconds").rows(frame))
    taken = {key_of(row): row["mean"] for row in records(over_seeds(seconds, ["model", *ROW_KEYS]))}
    figures = []
    for measure, found in gaps(frame, None):
        references = {key_of(row["reference"]): {**row["reference"], "gap": 0.0} for row in found}
        rows = [*references.values(), *found]
        figures.append((measure, _figure([{**r, "seconds": taken[key_of(r)]} for r in rows])))
    return figures


def _figure(found: list[dict[Any, Any]]) -> Figure:
    models = list(dict.fromkeys(row["model"] for row in found))
    patterns = sorted({row["pattern"] for row in found}, key=pattern_label)
    with house_style():
        figure = new_figure(COLUMN_WIDTH * len(models), _PANEL_HEIGHT * len(patterns))
        panels = figure.subplots(len(patterns), len(models), squeeze=False, sharex="col")
        for across, model in enumerate(models):
            for down, pattern in enumerate(patterns):
                axes = panels[down][across]
                of_panel = [r for r in found if (r["model"], r["pattern"]) == (model, pattern)]
                title = panel_title(model, pattern_label(pattern).title, COLUMN_WIDTH)
                _panel(axes, title, [row for row in of_panel if row["gap"] > _WORST])
                if not across:
                    axes.set_ylabel("gap closed (%)")
            panels[-1][across].set_xlabel("seconds of pruning")
        place_legend(figure, _handles([row for row in found if row["gap"] > _WORST]))
    return figure


def _panel(axes: Axes, title: str, rows: Sequence[dict[Any, Any]]) -> None:
    axes.axhline(0, color="#999999", linewidth=0.8)
    for row in rows:
        axes.plot(row["seconds"], row["gap"], **look(row).marks())
    pad = _TITLE_PAD
    if rows:
        best = max(rows, key=lambda row: float(row["gap"]))
        text = textwrap.fill(f"closes most: {look(best).label}", _CHARACTERS)
        axes.text(
            0.5, 1.02, text, transform=axes.transAxes, ha="center", va="bottom", fontsize=_NOTE_SIZE
        )
        pad += _NOTE_LINE * _NOTE_SIZE * len(text.split("\n"))
    axes.set_title(title, pad=pad)
    axes.margins(y=0.15)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _handles(rows: Sequence[dict[Any, Any]]) -> list[Line2D]:
    """A method as it is and with options, whichever: the panels name those that close most.

    Those that have a label are called by it alone.
    """
    looks = {}
    for row in sorted(rows, key=method_rank):
        name = own_label(row) or look(row, VARIANT_COLUMNS).label
        if variant_options(row) and not own_label(row):
            name += " with options"
        looks[name] = replace(look(row), label=name)
    return [Line2D([], [], label=label, **entry.marks()) for label, entry in looks.items()]
