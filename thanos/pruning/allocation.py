"""Unequal sparsities: what seems to hold more keeps more, and all together lose as much.

A unit (a block or a layer) is measured in the dense model, and the measure says how much denser
than others it stays. By outliers, as OWL does (arXiv 2310.05175), linearly: the share of scores
|W_ij|·‖X_j‖ that are larger than M times their mean. By error, logarithmically: if pruning unit i
of w_i weights to sparsity s does e_i exp(s/λ) to the hidden states, then the sum over units is
smallest, at the same sparsity of all together, where one weight more does the same in each of them:
s_i = c − λ ln(e_i / w_i).

A layer loses any number of weights, or, under n:m, has another n of the same m (mixed n:m).
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from thanos.accelerator import widest

from .patterns import SemiStructured, Unstructured, floor_count

_MEANS = 5.0  # OWL's M
_LEAST_ERROR = 1e-6  # of the largest: a block that gives nothing has none
_HALVINGS = 60
_ROUNDING = 1e-6


def outlier_share(scored: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of the scores of some layers, taken together, above M times their mean.

    Args:
        scored: per layer its weight (c, b) and its inputs' squared norms (b,).
    """
    scores = [W.abs().to(squares.dtype) * squares.sqrt() for W, squares in scored]
    count = sum(each.numel() for each in scores)
    mean = sum(float(each.sum(dtype=widest(each.device))) for each in scores) / count
    return sum(int((each > _MEANS * mean).sum()) for each in scores) / count


def kept_for_outliers(measures: Mapping[str, float], spread: float) -> dict[str, float]:
    """By how much each unit is denser than the sparsest, at most 2 λ.

    Args:
        measures: `outlier_share` of each unit.
        spread: λ.
    """
    low, high = min(measures.values()), max(measures.values())
    return {unit: (m - low) / ((high - low) or 1.0) * 2 * spread for unit, m in measures.items()}


def kept_for_errors(
    measures: Mapping[str, float], weights: Mapping[str, int], spread: float
) -> dict[str, float]:
    """By how much each unit is denser than one whose weights do 1 each: λ ln(e / w).

    Args:
        measures: error e of each unit, all at the same sparsity.
        weights: of each unit, w.
        spread: λ, the difference of sparsities that makes an error e times as large.
    """
    least = max(measures.values()) * _LEAST_ERROR or 1.0
    return {unit: spread * math.log(max(e, least) / weights[unit]) for unit, e in measures.items()}


def unit_sizes(sizes: Mapping[str, int], unit_of: Mapping[str, str]) -> dict[str, int]:
    """Weights of each unit, of those of its layers."""
    weights: dict[str, int] = defaultdict(int)
    for name, size in sizes.items():
        weights[unit_of[name]] += size
    return dict(weights)


def allocate(
    sizes: Mapping[str, int],
    unit_of: Mapping[str, str],
    kept: Mapping[str, float],
    sparsity: float,
) -> dict[str, Unstructured]:
    """The pattern of every layer; together they remove exactly ⌊p·(all weights)⌋.

    No layer keeps less than half of what all keep together.

    Args:
        sizes: weights of each layer.
        unit_of: the unit of each layer, whose layers have the same sparsity.
        kept: by how much each unit is to be denser than others.
        sparsity: p.
    """
    total, most = sum(sizes.values()), (1 + sparsity) / 2

    def sparsities(level: float) -> dict[str, float]:
        return {unit: min(most, max(0.0, level - more)) for unit, more in kept.items()}

    def removed(level: float) -> float:
        found = sparsities(level)
        return sum(size * found[unit_of[name]] for name, size in sizes.items())

    low, high = min(kept.values()), max(kept.values()) + most
    for _ in range(_HALVINGS):
        level = (low + high) / 2
        low, high = (level, high) if removed(level) < sparsity * total else (low, level)
    found = sparsities(high)
    targets = {name: found[unit_of[name]] * size for name, size in sizes.items()}
    # What bisection leaves open is far below one weight.
    counts = {name: int(target + _ROUNDING) for name, target in targets.items()}
    missing = floor_count(sparsity * total) - sum(counts.values())
    for name in sorted(targets, key=lambda name: counts[name] - targets[name])[:missing]:
        counts[name] += 1
    # Half a weight more, so that no rounding of p·c·b takes one away.
    return {name: Unstructured((counts[name] + 0.5) / sizes[name]) for name in sizes}


def allocate_groups(
    sizes: Mapping[str, int],
    unit_of: Mapping[str, str],
    kept: Mapping[str, float],
    pattern: SemiStructured,
) -> dict[str, SemiStructured]:
    """The n:m pattern of every layer; together they keep exactly n of m weights.

    Units of one size share among themselves, so that whole steps of 1/m sum up to nothing: the
    next one goes to the unit that is furthest below what it is to keep. That is the smallest sum of
    errors which steps allow. None keeps less than half of n, and none everything.

    Args:
        sizes: weights of each layer.
        unit_of: the unit of each layer, whose layers have the same pattern.
        kept: by how much each unit is to be denser than others.
        pattern: n:m.
    """
    weights = unit_sizes(sizes, unit_of)
    alike: dict[int, list[str]] = defaultdict(list)
    for unit, size in weights.items():
        alike[size].append(unit)
    n, m = pattern.n, pattern.m
    found = dict.fromkeys(weights, -(-n // 2))
    for units in alike.values():
        # Least first: what a unit has beyond what it is to keep; of equals the first one.
        waiting = [(found[unit] / m - kept[unit], at, unit) for at, unit in enumerate(units)]
        heapq.heapify(waiting)
        for _ in range(n * len(units) - sum(found[unit] for unit in units)):
            beyond, at, unit = heapq.heappop(waiting)
            found[unit] += 1
            if found[unit] < m - 1:
                heapq.heappush(waiting, (beyond + 1 / m, at, unit))
    return {name: SemiStructured(found[unit_of[name]], m) for name in sizes}
