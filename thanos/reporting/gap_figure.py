"""The gap to the dense model that a method closes, over the time that pruning takes."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from thanos.reporting.gap import ROW_KEYS, gaps, key_of
from thanos.reporting.labels import pattern_label
from thanos.reporting.measures import Measure, over_seeds, records, with_variants
from thanos.reporting.style import COLUMN_WIDTH, house_style, legend, look, new_figure

_PANEL_HEIGHT = 1.6  # inches
_WORST = -30.0  # percent: what is worse is below the panel


def gap_figures(frame: pd.DataFrame) -> list[tuple[Measure, Figure]]:
    """A figure per perplexity: the gap closed over pruning time, a panel per pattern and model."""
    seconds = with_variants(Measure("seconds").rows(frame))
    taken = {key_of(row): row["mean"] for row in records(over_seeds(seconds, ["model", *ROW_KEYS]))}
    return [
        (measure, _figure([{**row, "seconds": taken[key_of(row)]} for row in found]))
        for measure, found in gaps(frame, None)
    ]


def _figure(found: list[dict[Any, Any]]) -> Figure:
    models = list(dict.fromkeys(row["model"] for row in found))
    patterns = sorted({row["pattern"] for row in found}, key=pattern_label)
    with house_style():
        figure = new_figure(COLUMN_WIDTH * len(models), _PANEL_HEIGHT * len(patterns))
        panels = figure.subplots(len(patterns), len(models), squeeze=False, sharex="col")
        for across, model in enumerate(models):
            for down, pattern in enumerate(patterns):
                axes = panels[down][across]
                axes.axhline(0, color="#999999", linewidth=0.8)
                for row in found:
                    if (row["model"], row["pattern"]) == (model, pattern) and row["gap"] > _WORST:
                        axes.plot(row["seconds"], row["gap"], **look(row).marks())
                axes.set_xscale("log")
                axes.set_title(f"{model}, {pattern_label(pattern).title}")
                if not across:
                    axes.set_ylabel("gap closed (%)")
            panels[-1][across].set_xlabel("seconds of pruning")
        legend(figure, found)
    return figure
