"""The grid of components as a heat map: the mask's metric down, scope and update across."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from thanos.errors import UserError
from thanos.reporting.ablations import sweep_points, sweep_rows
from thanos.reporting.labels import DENSE
from thanos.reporting.measures import Measure, main_measures, over_seeds, records
from thanos.reporting.style import COLUMN_WIDTH, TEXT_SIZE, house_style, new_figure

GRID_AXES = ("mask_metric", "mask_scope", "mask_update")
_METRICS = ("magnitude", "wanda", "sparsegpt")
_SCOPES = ("layer", "row", "block", "residual", "")  # n:m and structured have none
_UPDATES = ("none", "sequential", "joint")
_COLOURS = "cividis_r"  # readable by the colour-blind and in grey
_ROW = 0.27  # inches
_SMALLEST_LOSS = 1e-3  # relative to dense; nothing below it is told apart
_DARK = 0.55  # of the colour range, beyond which text is white


def component_figure(frame: pd.DataFrame, measure: Measure | None = None) -> Figure:
    """A panel per model, pattern and refinement; cells are the loss over dense in percent.

    Colours are logarithmic and shared by all panels. Combinations that don't exist stay empty.
    """
    rows = sweep_rows(frame, GRID_AXES, measure)
    measure = measure or main_measures(frame)[0]
    points = sweep_points(rows, GRID_AXES, ())
    dense = over_seeds(rows[rows["pattern"] == DENSE], ["model"]).set_index("model")["mean"]
    if missing := sorted(set(points["model"]) - set(dense.index)):
        raise UserError(f"component figure: no dense result of {', '.join(missing)}")
    points = points.assign(
        loss=points["mean"].to_numpy() / dense[points["model"]].to_numpy() - 1,
        panel=[_panel(row) for row in records(points)],
    )
    losses = points["loss"].clip(lower=_SMALLEST_LOSS)
    metrics = [metric for metric in _METRICS if any(at[0] == metric for at in points["at"])]
    norm = LogNorm(losses.min(), max(losses.max(), 1.01 * losses.min()))
    panels = list(dict.fromkeys(points["panel"]))
    columns = {panel: _columns(points[points["panel"] == panel]) for panel in panels}
    down = -(-len(panels) // 2)
    with house_style():
        figure = new_figure(2 * COLUMN_WIDTH, (len(metrics) * _ROW + 1.0) * down + 0.55)
        grid = figure.subplots(down, min(2, len(panels)), squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index >= len(panels):
                axes.set_axis_off()
                continue
            here = points[points["panel"] == panels[index]]
            image = _draw(axes, here, metrics, columns[panels[index]], norm)
            axes.set_title(panels[index], pad=14)  # above the names of the scopes
        bar = figure.colorbar(image, ax=grid, orientation="horizontal", aspect=60, pad=0.03)
        bar.ax.set_xlabel(f"{measure.title}, above dense (%, log)")
        bar.ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        bar.ax.xaxis.set_minor_formatter(lambda *_: "")
    return figure


def _panel(row: dict[str, Any]) -> str:
    refined = row["refine_steps"]
    return f"{row['model']}, {row['kind']}" + (", refined" if refined else "")


def _columns(points: pd.DataFrame) -> list[tuple[Any, str]]:
    """(scope, update) of every column that has a result."""
    found = {at[1:] for at in points["at"]}
    return [(scope, update) for scope in _SCOPES for update in _UPDATES if (scope, update) in found]


def _draw(
    axes: Axes,
    points: pd.DataFrame,
    metrics: list[str],
    columns: list[tuple[Any, str]],
    norm: LogNorm,
) -> Any:
    losses = {row["at"]: row["loss"] for row in records(points)}
    values = np.array(
        [[losses.get((metric, *column), np.nan) for column in columns] for metric in metrics]
    )
    image = axes.imshow(np.maximum(values, _SMALLEST_LOSS), norm=norm, cmap=_COLOURS, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        axes.text(
            column,
            row,
            _percent(value),
            ha="center",
            va="center",
            fontsize=TEXT_SIZE - 1,
            color="white" if norm(max(value, _SMALLEST_LOSS)) > _DARK else "black",
        )
    axes.set_yticks(range(len(metrics)), metrics)
    axes.set_xticks(range(len(columns)), [update for _, update in columns], rotation=35, ha="right")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    scopes = [scope for scope, _ in columns]
    for index in range(1, len(columns)):
        if scopes[index] != scopes[index - 1]:
            axes.axvline(index - 0.5, color="white", linewidth=2)
    for scope in dict.fromkeys(scopes):
        if scope:
            places = [index for index, other in enumerate(scopes) if other == scope]
            axes.text(
                float(np.mean(places)), -0.6, scope, ha="center", va="bottom", fontsize=TEXT_SIZE
            )
    return image


def _percent(loss: float) -> str:
    percent = 100 * loss
    return f"{percent:.1f}" if percent < 10 else f"{percent:.0f}" if percent < 1e4 else ">9999"
