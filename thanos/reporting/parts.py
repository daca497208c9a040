"""Where the time of pruning goes: the seconds of every part of the work, beside each other."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from thanos.reporting.labels import VARIANT_COLUMNS, method_label, method_rank, pattern_label
from thanos.reporting.measures import Measure, over_seeds, records, with_variants
from thanos.reporting.style import COLUMN_WIDTH, TEXT_SIZE, house_style, new_figure, place_legend

PREFIX = "seconds."
# Okabe and Ito's palette, in the order in which a block goes through the parts.
_COLOURS = {
    **{"read": "#56B4E9", "forward": "#0072B2", "gram": "#009E73", "solve": "#D55E00"},
    **{"write": "#E69F00", "waiting": "#CC79A7", "other": "#999999"},
}
PARTS = tuple(_COLOURS)
_KEYS = ("pattern", "method", *VARIANT_COLUMNS)
_BAR = 0.17  # inches from one bar to the next
_AROUND = 0.5  # a panel's title and ticks


def parts_figure(frame: pd.DataFrame) -> Figure | None:
    """A bar per pattern and method, cut into the parts that its seconds went to.

    A panel per model, one below the other; means over seeds. None if no run has such parts.
    """
    plain = frame["quantization"].isin(("", "none"))  # quantised runs were pruned the same way
    rows = with_variants(frame[plain & frame["metric"].str.startswith(PREFIX)])
    if rows.empty:
        return None
    means = over_seeds(rows, ["model", *_KEYS, "metric"])
    bars = {
        model: _ordered(means[means["model"] == model]) for model in dict.fromkeys(means["model"])
    }
    with house_style():
        heights = [_BAR * len(of_model) for of_model in bars.values()]
        figure = new_figure(1.5 * COLUMN_WIDTH, sum(heights) + _AROUND * (len(bars) + 0.5))
        grid = figure.subplots(len(bars), squeeze=False, height_ratios=heights)[:, 0]
        for (model, of_model), axes in zip(bars.items(), grid, strict=True):
            ends = np.zeros(len(of_model))
            for name, colour in _COLOURS.items():
                widths = [found.get(PREFIX + name, 0.0) for found in of_model.values()]
                axes.barh(range(len(of_model)), widths, left=ends, height=0.75, color=colour)
                ends += widths
            axes.set_yticks(range(len(of_model)), list(of_model))
            axes.invert_yaxis()
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", visible=False)
            axes.set_title(model)
        figure.supxlabel(Measure("seconds").title, fontsize=TEXT_SIZE)
        handles = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
        place_legend(figure, handles)
    return figure


def _ordered(means: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Seconds by metric of every pattern and method, in the order of the tables."""
    found: dict[str, dict[str, float]] = {}

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return pattern_label(row["pattern"]), method_rank(row)

    for row in sorted(records(means), key=order):
        label = f"{pattern_label(row['pattern']).title}, {method_label(row)}"
        found.setdefault(label, {})[row["metric"]] = row["mean"]
    return found
