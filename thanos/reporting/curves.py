"""Line figures: a metric over a swept option, and the relative error layer by layer."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from thanos.errors import UserError
from thanos.reporting.ablations import axis_text, columns_across, natural, sweep_points, sweep_rows
from thanos.reporting.labels import DENSE, VARIANT_COLUMNS, column_of, pattern_label
from thanos.reporting.measures import Measure, main_measures, over_seeds, records, with_variants
from thanos.reporting.scales import ends, value_axis
from thanos.reporting.style import (
    COLUMN_WIDTH,
    TEXT_SIZE,
    Look,
    dense_line,
    house_style,
    legend,
    look,
    looks,
    new_figure,
    panel_title,
)

_AXIS_TITLES = {
    "block_size": "block size B (columns)",
    "outlier_fraction": "outlier rows α (fraction)",
    "calibration_windows": "calibration windows",
    "nominal_sparsity": "sparsity p (fraction)",
    "damping": "damping λ",
    "refine_steps": "refinement steps",
}
_LOGARITHMIC = {"block_size": 2.0, "calibration_windows": 2.0, "damping": 10.0}
_MOST_TICKS = 6
_PANEL_HEIGHT = 1.75  # inches


def sweep_figure(
    frame: pd.DataFrame, axis: str, measure: Measure | None = None, along: Sequence[str] = ()
) -> Figure:
    """Lines of a metric over the values of `axis`: a panel per model (down) and pattern (across).

    `axis` is as in `ablation_table`, `along` are keys whose values follow from its. Bars are 95%
    intervals over seeds, the dotted line is the dense model, which is in the titles where all
    results are far from it. Runs that lack the option are left
    out.
    """
    axis, *others = (column_of(key) for key in (axis, *along))
    across = columns_across(frame, (axis, *others))
    rows = sweep_rows(frame, (axis, *others, *across), measure)
    measure = measure or main_measures(frame)[0]
    points = sweep_points(rows, (axis, *others), across)
    points = points[points["at"].map(lambda at: at[0] is not None)]
    if points.empty:
        raise UserError(f"figure over {axis}: no run has a value of it")
    points = points.assign(panel=points["head"].map(lambda head: head[0].split(", ", 1)[1]))
    dense = rows[rows["pattern"] == DENSE]
    models, panels = list(dict.fromkeys(points["model"])), list(dict.fromkeys(points["panel"]))
    without = (axis, *others, *across)
    with house_style():
        width = COLUMN_WIDTH if len(panels) == 1 else max(2 * COLUMN_WIDTH, 1.7 * len(panels))
        figure = new_figure(width, (_PANEL_HEIGHT + 0.2) * len(models) + 0.4)
        grid = figure.subplots(len(models), len(panels), squeeze=False, sharey="row")
        out_of_sight: set[str] = set()
        for model, line in zip(models, grid, strict=True):
            of_model = points[points["model"] == model]
            for panel, axes in zip(panels, line, strict=True):
                reference = dense_line(axes, _dense_means(dense, model), "horizontal")
                here = of_model[of_model["panel"] == panel]
                _draw_lines(axes, here, axis, without)
            _scale_panels(line, of_model, measure, reference)
            for panel, axes in zip(panels, line, strict=True):
                name = model
                if reference is not None and reference < axes.get_ylim()[0]:  # out of sight
                    name = f"{model} (dense {measure.text(reference)})"
                    out_of_sight.add(model)
                axes.set_title(panel_title(name, panel, width / len(panels)))
        figure.supylabel(grid[0, 0].get_ylabel(), fontsize=TEXT_SIZE)
        for axes in grid.flat:
            axes.set_ylabel("")
        for axes in grid[-1]:
            axes.set_xlabel(axis_title(axis))
        drawn = bool({*models} & {*dense["model"]} - out_of_sight)
        legend(figure, records(points), without=without, dense=drawn, lines=True)
    return figure


def layer_figure(layers: pd.DataFrame, model: str, pattern: str) -> Figure:
    """Relative error of each layer over the depth of one model under one pattern, and sparsity.

    A panel per layer type, a line per method; means over seeds. The last panel has the sparsity of
    the blocks, with bars from the least to the most sparse layer. `layers` is of `collect`.
    """
    wanted = pattern_label(pattern)
    rows = layers[(layers["model"] == model) & (layers["pattern"] == wanted.text)]
    if rows.empty:
        raise UserError(f"layer figure: no layer records of {model} with pattern {wanted.text}")
    rows = with_variants(rows.assign(value=rows["relative_error"]))
    keys = ["pattern", "method", *VARIANT_COLUMNS, "layer_type", "block"]
    means = over_seeds(rows.dropna(subset="value"), keys)  # a run may leave errors unmeasured
    if means.empty:
        raise UserError(f"layer figure: no relative errors of {model} with {wanted.text}")
    kinds = list(dict.fromkeys(rows["layer_type"]))
    across = min(4, len(kinds) + 1)
    down = -(-(len(kinds) + 1) // across)
    error = Measure("relative_error")
    with house_style():
        width = COLUMN_WIDTH if across == 1 else 2 * COLUMN_WIDTH
        figure = new_figure(width, (_PANEL_HEIGHT - 0.25) * down + 0.6)
        grid = figure.subplots(down, across, squeeze=False, sharex=True)
        for index, axes in enumerate(grid.flat):
            axes.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS, integer=True))
            axes.tick_params(labelbottom=index + across > len(kinds))
            if index == len(kinds):
                _draw_sparsity(axes, rows)
                continue
            if index > len(kinds):
                axes.set_axis_off()
                continue
            for entry, line in _lines(means[means["layer_type"] == kinds[index]], ()):
                every = max(1, len(line) // 8)
                axes.plot(line["block"], line["mean"], markevery=every, **entry.line())
            axes.set_title(kinds[index])
            axes.tick_params(labelleft=index % across == 0)
            value_axis(axes, "y", ends(means), error, None)
        figure.supylabel(grid[0, 0].get_ylabel(), fontsize=TEXT_SIZE)
        figure.supxlabel(f"decoder block of {model}, {wanted.title}", fontsize=TEXT_SIZE)
        for axes in grid.flat:
            axes.set_ylabel("")
        legend(figure, records(means), lines=True)
    return figure


def _draw_sparsity(axes: Axes, rows: pd.DataFrame) -> None:
    """Mean sparsity of each block by method, with the range over its layers."""
    keys = ["pattern", "method", *VARIANT_COLUMNS, "block"]
    blocks = rows.groupby(keys, as_index=False)["sparsity"].agg(["mean", "min", "max"])
    drawn = list(_lines(blocks, ()))
    for index, (entry, line) in enumerate(drawn):
        # Methods often agree to the last weight: side by side, none hides another.
        at = line["block"] + 0.6 * ((index + 0.5) / len(drawn) - 0.5)
        reach = 100 * np.array([line["mean"] - line["min"], line["max"] - line["mean"]])
        reach = reach.clip(min=0)  # the mean of equal numbers may round past them
        axes.errorbar(
            at, 100 * line["mean"], yerr=reach, elinewidth=0.8, **{**entry.line(), "linestyle": ""}
        )
    axes.set_title("sparsity (%)")
    low, high = 100 * blocks["min"].min(), 100 * blocks["max"].max()
    room = max(0.1 * (high - low), 1.0)
    axes.set_ylim(low - room, high + room)


def axis_title(axis: str) -> str:
    """What a swept option is called, with its symbol; a column or its configuration key."""
    axis = column_of(axis)
    return _AXIS_TITLES.get(axis, axis.replace("_", " "))


def _dense_means(dense: pd.DataFrame, model: str) -> pd.DataFrame:
    return over_seeds(dense[dense["model"] == model], ["model", "pattern"])


def _lines(points: pd.DataFrame, without: tuple[str, ...]) -> Iterator[tuple[Look, pd.DataFrame]]:
    """The points of each line of a panel, in the order of methods."""
    drawn = [look(row, without) for row in records(points)]
    for entry in looks(records(points), without):
        yield entry, points[[look == entry for look in drawn]]


def _draw_lines(axes: Axes, points: pd.DataFrame, axis: str, without: tuple[str, ...]) -> None:
    """One panel; texts on the swept axis get evenly spaced places."""
    if points.empty:
        return
    levels = [at[0] for at in sorted(set(points["at"]), key=natural)]
    is_text = any(isinstance(level, str) for level in levels)
    places = {level: index if is_text else level for index, level in enumerate(levels)}
    for entry, line in _lines(points, without):
        at = line["at"].map(lambda value: places[value[0]])
        order = np.argsort(at.to_numpy(), kind="stable")
        bars = line["interval"].to_numpy()[order]
        axes.errorbar(
            at.to_numpy()[order],
            line["mean"].to_numpy()[order],
            yerr=None if np.isnan(bars).all() else bars,
            elinewidth=0.8,
            **entry.line(),
        )
    if axis in _LOGARITHMIC and min(levels) > 0:
        axes.set_xscale("log", base=_LOGARITHMIC[axis])
    step = 1 if is_text else -(-len(levels) // _MOST_TICKS)
    ticks = levels[::step]
    axes.xaxis.set_major_locator(FixedLocator([places[level] for level in ticks]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick_text(x, levels, is_text)))
    axes.xaxis.set_minor_locator(NullLocator())


def _tick_text(place: float, levels: list[Any], is_text: bool) -> str:
    if is_text:
        return str(levels[int(place)])
    power = np.log10(place) if place > 0 else 0.0
    if abs(power) >= 3 and abs(power - round(power)) < 1e-9:
        return f"$10^{{{round(power)}}}$"
    return axis_text(float(place))


def _scale_panels(
    line: np.ndarray, points: pd.DataFrame, measure: Measure, dense: float | None
) -> None:
    """The same value axis for all panels of a model."""
    for axes in line:
        value_axis(axes, "y", ends(points), measure, dense)
