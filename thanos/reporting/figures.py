"""The figures: all methods by pattern, one metric over a swept option, errors layer by layer."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, VARIANT_COLUMNS, method_rank, pattern_label
from thanos.reporting.measures import (
    Measure,
    main_measures,
    over_seeds,
    records,
    refuse_mixed_protocols,
    with_variants,
)
from thanos.reporting.scales import ends, value_axis
from thanos.reporting.style import (
    COLUMN_WIDTH,
    TEXT_SIZE,
    dense_line,
    house_style,
    legend,
    look,
    new_figure,
)

_PITCH = 0.155  # inches per row of the dot plot: a line of text and air
_GAP = 2.0  # rows from one pattern to the next
_ROW_KEYS = ("pattern", "method", *VARIANT_COLUMNS)
_Places = dict[tuple[Any, ...], float]


def main_figure(frame: pd.DataFrame, measure: Measure | None = None) -> Figure:
    """Dot plot: a panel per model, a row per pattern and method, the value beside each dot.

    Perplexity is placed by its distance to the dense model, which is a line; bars are 95% intervals
    over seeds. `measure` is by default the first perplexity.
    """
    measure = measure or next(iter(main_measures(frame)), Measure("perplexity"))
    rows = measure.rows(with_variants(frame))
    if (rows["pattern"] == DENSE).all():
        raise UserError(f"main figure: no pruned run has {measure.title[:-2]}")
    refuse_mixed_protocols(rows, measure)
    means = over_seeds(rows, ["model", *_ROW_KEYS])
    pruned = means[means["pattern"] != DENSE]
    places = _places(pruned)
    models = list(dict.fromkeys(rows["model"]))
    across = min(2, len(models))
    down = -(-len(models) // across)
    height = (_PITCH * (max(places.values()) + 2) + 0.6) * down + 0.1
    with house_style():
        figure = new_figure(COLUMN_WIDTH * across, height)
        grid = figure.subplots(down, across, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(models):
                axes.set_axis_off()
                continue
            _draw_dots(axes, means[means["model"] == models[index]], places, measure)
            axes.set_title(_title(models[index], means, measure))
            if index % across:
                axes.set_yticklabels([])
        legend(figure, records(pruned), dense=len(pruned) < len(means))
    return figure


def _title(model: str, means: pd.DataFrame, measure: Measure) -> str:
    dense = means.loc[(means["model"] == model) & (means["pattern"] == DENSE), "mean"]
    return model if dense.empty else f"{model} (dense {measure.text(dense.iloc[0])})"


def _places(pruned: pd.DataFrame) -> _Places:
    """A height per (pattern, method, variant), top down, with a gap between patterns."""

    def order(key: tuple[Any, ...]) -> tuple[Any, ...]:
        return pattern_label(key[0]), method_rank(dict(zip(_ROW_KEYS, key, strict=True)))

    keys = sorted({_key(row) for row in records(pruned)}, key=order)
    places: _Places = {keys[0]: 0.0}
    for before, key in pairwise(keys):
        places[key] = places[before] + (1 if key[0] == before[0] else _GAP)
    return places


def _key(row: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in _ROW_KEYS)


def _draw_dots(axes: Axes, means: pd.DataFrame, places: _Places, measure: Measure) -> None:
    dense = dense_line(axes, means, "vertical")
    pruned = means[means["pattern"] != DENSE]
    side, room = (-1, (0.18, 0.05)) if measure.higher_is_better else (1, (0.05, 0.18))
    if not pruned.empty:
        value_axis(axes, "x", ends(pruned), measure, dense, room)
    low, high = axes.get_xlim()
    for row in records(pruned):
        at, half_width = places[_key(row)], np.nan_to_num(row["interval"])
        end = row["mean"] + side * half_width
        axes.errorbar(row["mean"], at, xerr=half_width or None, **look(row).marks())
        axes.annotate(
            measure.text(row["mean"]),
            (end if low <= end <= high else row["mean"], at),
            xytext=(5 * side, -0.5),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3},
            fontsize=TEXT_SIZE - 0.5,
        )
    patterns: dict[str, list[float]] = {}
    for key, at in places.items():
        patterns.setdefault(key[0], []).append(at)
    for above, below in pairwise(patterns.values()):
        axes.axhline((above[-1] + below[0]) / 2, color="#E5E5E5", linewidth=0.6)
    titles = [pattern_label(text).title.replace(" ", "\n") for text in patterns]
    axes.set_yticks([float(np.mean(at)) for at in patterns.values()], titles)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(max(places.values()) + 1, -1)
