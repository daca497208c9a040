"""Tokens per second of serving, dense beside pruned, with what the machine allows at the most."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from thanos.reporting.efficiency import SERVING, serving_points
from thanos.reporting.labels import VARIANT_COLUMNS, method_rank
from thanos.reporting.measures import over_seeds, records, with_variants
from thanos.reporting.style import (
    COLUMN_WIDTH,
    DENSE_COLOUR,
    Look,
    house_style,
    look,
    new_figure,
    place_legend,
)

_PARTS = {"prefill": "Prefill", "decode": "Decoding"}
_HEIGHT = 2.2  # inches
_SHARE = 0.8  # of the room of a point that its bars take
_LIMIT: dict[str, Any] = {"color": "#333333", "linewidth": 1.2, "linestyle": "-"}


def serving_figure(frame: pd.DataFrame, model: str, pattern: str) -> Figure:
    """Prefill and decoding side by side: for each batch and prompt a bar per model, from one.

    Args:
        frame: with metrics `efficiency.serving.*`.
        model: as the frame names it.
        pattern: of the pruned models.
    """
    rows = with_variants(frame[frame["metric"].str.startswith(SERVING)])
    rows = rows[(rows["model"] == model) & (rows["pattern"] == pattern)]
    means = records(over_seeds(rows, ["metric", "method", *VARIANT_COLUMNS]))
    by_look: dict[Look, dict[str, float]] = {}
    for row in sorted(means, key=method_rank):
        by_look.setdefault(look(row), {})[row["metric"]] = row["mean"]
    points = serving_points(rows)
    with house_style():
        figure = new_figure(2 * COLUMN_WIDTH, _HEIGHT)
        panels = figure.subplots(1, 2)
        for axes, (part, title) in zip(panels, _PARTS.items(), strict=True):
            _draw(axes, by_look, points, part)
            axes.set_title(title)
        panels[0].set_ylabel("tokens per second")
        handles = [_square(DENSE_COLOUR, "Dense")]
        handles += [_square(each.colour, each.label) for each in by_look]
        place_legend(figure, [*handles, Line2D([], [], label="Machine's limit", **_LIMIT)])
    return figure


def _draw(
    axes: Axes, by_look: dict[Look, dict[str, float]], points: list[tuple[int, int]], part: str
) -> None:
    width = _SHARE / (1 + len(by_look))
    dense = {
        key: float(np.mean([v[key] for v in by_look.values()]))
        for key in next(iter(by_look.values()))
    }
    bars = [("dense", DENSE_COLOUR, dense)]
    bars += [("pruned", each.colour, values) for each, values in by_look.items()]
    for place, (name, colour, values) in enumerate(bars):
        for at, (batch, prompt) in enumerate(points):
            key = f"{SERVING}{batch}x{prompt}.{part}.{name}"
            left = at - _SHARE / 2 + place * width
            height = values[f"{key}_tokens_per_second"]
            limit = height * values[f"{key}_ms"] / values[f"{key}_limit_ms"]
            axes.bar(left, height, width, align="edge", color=colour)
            axes.plot([left, left + width], [limit, limit], **_LIMIT)
    axes.set_yscale("log")
    axes.set_xticks(range(len(points)), [f"{batch} × {prompt}" for batch, prompt in points])
    axes.set_xlabel("batch × prompt")
    axes.grid(visible=False, axis="x")


def _square(colour: str, label: str) -> Line2D:
    return Line2D([], [], label=label, color=colour, marker="s", linestyle="none")
