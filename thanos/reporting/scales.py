"""Axes on which small and huge losses can be read together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from thanos.reporting.measures import Measure

Which = Literal["x", "y"]
_LINEAR = 0.01  # relative distance to the dense model within which the scale is linear
_MOST_TICKS = 6
_EMPTY = 0.55  # of an axis, between dense model and data: then it leaves the former out
# Shares of a panel's width that a label takes per character, and that lie between two labels.
_CHARACTER, _AIR = 0.029, 0.02


@dataclass(frozen=True)
class Scale:
    """A monotone map from values to positions, and back."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]

    def limits(self, values: np.ndarray, room: tuple[float, float]) -> tuple[float, float]:
        """Limits that leave the shares `room` of the range free at the low and the high end."""
        low, high = self.forward(values.min()), self.forward(values.max())
        span = (high - low) or abs(high) or 1.0
        return self.backward(low - room[0] * span), self.backward(high + room[1] * span)


LINEAR = Scale(lambda x: x, lambda x: x)
LOGARITHMIC = Scale(np.log10, lambda x: np.power(10.0, x))


def loss_scale(dense: float) -> Scale:
    """asinh of the distance to `dense` in percent: +2% and +2000% can both be read."""
    return Scale(
        lambda x: np.arcsinh((np.asarray(x) / dense - 1) / _LINEAR),
        lambda x: dense * (1 + np.sinh(x) * _LINEAR),
    )


def ends(means: pd.DataFrame) -> np.ndarray:
    """Both ends of the intervals of `over_seeds`; below zero they are cut, to allow logarithms."""
    reach = means["interval"].fillna(0.0)
    floor = min(means["mean"].min(), max(means["mean"].min() / 3, 0.0))
    return np.concatenate([np.maximum(means["mean"] - reach, floor), means["mean"] + reach])


def value_axis(
    axes: Axes,
    which: Which,
    values: np.ndarray,
    measure: Measure,
    dense: float | None,
    room: tuple[float, float] = (0.05, 0.05),
) -> None:
    """Scale and label one axis for values of a measure.

    Perplexity with a dense model: `loss_scale`, ticks in percent; an axis of curves begins at the
    data where most of it would lie empty above the dense model. Other positive quantities that
    should be low: logarithmic where they span more than a factor of three. The rest: linear.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    label = measure.title
    known = values if dense is None else np.append(values, dense)
    if measure.metric == "perplexity" and dense is not None:
        scale = loss_scale(dense)
        nearest, furthest = scale.forward(values.min()), scale.forward(values.max())
        far = which == "y" and nearest > _EMPTY * furthest
        known = values if far else known
        losses = _ticks_between(known / dense - 1) if far else _relative_ticks(known / dense - 1)
        if which == "x":
            losses = _apart(losses, np.ptp(scale.forward(known)) * (1 + sum(room)))
        locator: Any = FixedLocator([dense * (1 + loss) for loss in losses])
        formatter: Any = FuncFormatter(lambda x, _: _relative_text(x / dense - 1))
        label += ", above dense (log)"
    elif not measure.higher_is_better and values.min() > 0 and values.max() > 3 * values.min():
        scale = LOGARITHMIC
        decades = np.log10(values.max() / values.min())
        subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1 else (1.0, 2.0, 5.0)
        locator, formatter = LogLocator(subs=subs), FuncFormatter(lambda x, _: f"{x:g}")
        label += " (log)"
    else:
        scale, locator, formatter = LINEAR, axis.get_major_locator(), axis.get_major_formatter()
    set_scale = axes.set_xscale if which == "x" else axes.set_yscale
    if scale is LOGARITHMIC:
        set_scale("log")
    elif scale is not LINEAR:
        set_scale("function", functions=(scale.forward, scale.backward))
    axis.set_major_locator(locator)
    axis.set_major_formatter(formatter)
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)
    (axes.set_xlim if which == "x" else axes.set_ylim)(*scale.limits(known, room))


def _relative_ticks(losses: np.ndarray) -> list[float]:
    """0, and 1, 3, 10, 30 … percent on both sides as far as the data goes; fewer if too many."""
    for steps, every in (((0.01, 0.03), 1), ((0.01,), 1), ((0.01,), 2)):
        sizes = [step * 10.0**power for power in range(0, 10, every) for step in steps]
        above = [size for size in sizes if size <= losses.max()]
        below = [-size for size in sizes if losses.min() <= -size > -1]
        if len(above) + len(below) < _MOST_TICKS:
            break
    return [*below, 0.0, *above]


def _ticks_between(losses: np.ndarray) -> list[float]:
    """Round percentages in the range of losses above zero, evenly spaced if that is short."""
    low, high = float(losses.min()), float(losses.max())
    if high < 4 * low:
        found = MaxNLocator(_MOST_TICKS - 2, steps=[1, 2, 5, 10]).tick_values(low, high)
        return [float(tick) for tick in found if low <= tick <= high]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        sizes = [step * 10.0**power for power in range(-2, 10) for step in steps]
        sizes = [size for size in sizes if low <= size <= high]
        if len(sizes) < _MOST_TICKS:
            break
    return sizes


def _apart(losses: list[float], width: float) -> list[float]:
    """The ticks, outwards from 0, without those whose labels would touch the one before."""
    scale = loss_scale(1.0)
    kept = [0.0]
    for side in ([x for x in losses if x > 0], sorted((x for x in losses if x < 0), reverse=True)):
        before = 0.0
        for loss in side:
            characters = (len(_relative_text(before)) + len(_relative_text(loss))) / 2
            apart = abs(scale.forward(1 + loss) - scale.forward(1 + before)) / width
            if apart >= characters * _CHARACTER + _AIR:
                kept.append(loss)
                before = loss
    return sorted(kept)


def _relative_text(loss: float) -> str:
    if abs(loss) < 1e-4:
        return "0"
    if loss > 9.99:
        return f"×{loss:.0f}" if loss > 99 else f"×{loss:.3g}"
    return f"{100 * loss:+.3g}%".replace("-", "−")
