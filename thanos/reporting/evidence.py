"""Whether one result is better than another by more than chance: paired differences.

Two methods are compared on what they share. With several seeds in common the pairs are the seeds,
and the interval says what another draw of calibration data could change. With one seed the pairs
are the evaluation windows, and it says what other text could change. Accuracies of one seed have
only their standard errors.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thanos.reporting.measures import Measure, Observation, mean_interval

SAME_SPARSITY = 0.005  # no further apart is the same: counts are of whole rows and columns
_NORMAL = 1.96  # 97.5% quantile
_OF_LOSSES = ("perplexity", "perplexity_ratio")  # exponentials of a loss


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and the half width of its 95% interval (NaN: not known).

    Of perplexities it is that of the losses in nats: exp(mean) - 1 is the relative difference.
    """

    mean: float
    half_width: float

    @property
    def supported(self) -> bool:
        """Whether the interval leaves zero out."""
        return abs(self.mean) > self.half_width  # False for NaN


class Evidence:
    """Compares results of one measure.

    Args:
        measure: of the results.
        windows: of `collect`; without it one seed of a perplexity proves nothing.
        frame: of `collect`, for the sparsities; a run whose own is not there has any other's.
    """

    def __init__(
        self,
        measure: Measure,
        windows: pd.DataFrame | None = None,
        frame: pd.DataFrame | None = None,
    ) -> None:
        self.measure = measure
        self._sparsities: dict[str, float] = {}
        if frame is not None:
            reached = frame[frame["metric"] == "sparsity"]
            self._sparsities = dict(zip(reached["run"], reached["value"], strict=True))
        self._by_window: dict[str, np.ndarray] = {}
        column = "loss" if measure.metric in _OF_LOSSES else measure.metric
        if windows is not None and column in windows.columns:
            ours = windows[windows["dataset"] == measure.dataset].dropna(subset=column)
            for run, group in ours.groupby("run", sort=False):
                self._by_window[str(run)] = group.sort_values("window")[column].to_numpy()

    def best(self, one: Sequence[Observation], all_: Iterable[Sequence[Observation]]) -> bool:
        """Whether `one` is better than each of the others that have its sparsity, if any."""
        has_rival = False
        for other in all_:
            if other and other is not one and self._same_sparsity(one, other):
                has_rival = True
                if not self.better(one, other):
                    return False  # of thousands of rows most meet such a rival soon
        return has_rival

    def better(self, one: Sequence[Observation], other: Sequence[Observation]) -> bool:
        """Whether the interval of the difference puts `one` before `other`."""
        difference = self.difference(one, other)
        if difference is None or not difference.supported:
            return False
        return (difference.mean > 0) == self.measure.higher_is_better

    def difference(
        self, one: Sequence[Observation], other: Sequence[Observation]
    ) -> Difference | None:
        """The mean of `one` - `other` on what they share; None if that is nothing."""
        first, second = ({seen.seed: seen for seen in group} for group in (one, other))
        seeds = sorted(set(first) & set(second))
        if not seeds:
            return None
        pairs = [(first[seed], second[seed]) for seed in seeds]
        if len(pairs) > 1:
            values = np.array([self._value(a) - self._value(b) for a, b in pairs])
            return Difference(*mean_interval(values))
        return self._of_one_seed(*pairs[0])

    def _of_one_seed(self, one: Observation, other: Observation) -> Difference:
        first, second = (self._by_window.get(seen.run) for seen in (one, other))
        if first is not None and second is not None and len(first) == len(second):
            return Difference(*mean_interval(first - second))
        half_width = _NORMAL * math.hypot(one.stderr, other.stderr)
        return Difference(self._value(one) - self._value(other), half_width)

    def _same_sparsity(self, one: Sequence[Observation], other: Sequence[Observation]) -> bool:
        first, second = (
            float(np.mean([self._sparsities.get(seen.run, math.nan) for seen in group]))
            for group in (one, other)
        )
        return not abs(first - second) > SAME_SPARSITY

    def _value(self, seen: Observation) -> float:
        return math.log(seen.value) if self.measure.metric in _OF_LOSSES else seen.value
