"""Unequal sparsities: layers that seem to hold more keep more, and all together lose as much.

OWL (arXiv 2310.05175) measures by outliers: the share of scores |W_ij|·‖X_j‖ that are larger than
M times their mean. The densities follow the measure, at most λ above and below a common value.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from thanos.accelerator import widest

from .errors import PruningError
from .patterns import Unstructured, floor_count

_MEANS = 5.0  # OWL's M


def outlier_share(scored: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Share of the scores of some layers, taken together, above M times their mean.

    Args:
        scored: per layer its weight (c, b) and its inputs' squared norms (b,).
    """
    scores = [W.abs().to(squares.dtype) * squares.sqrt() for W, squares in scored]
    count = sum(each.numel() for each in scores)
    mean = sum(float(each.sum(dtype=widest(each.device))) for each in scores) / count
    return sum(int((each > _MEANS * mean).sum()) for each in scores) / count


def allocate(
    sizes: Mapping[str, int],
    unit_of: Mapping[str, str],
    measures: Mapping[str, float],
    sparsity: float,
    spread: float,
) -> dict[str, Unstructured]:
    """The pattern of every layer; together they remove exactly ⌊p·(all weights)⌋.

    Args:
        sizes: weights of each layer.
        unit_of: the unit of each layer, whose layers have the same sparsity.
        measures: of each unit; what has more keeps more.
        sparsity: p.
        spread: λ; densities lie within 2 λ of each other.

    Raises:
        PruningError: a unit would keep all of its weights, or none.
    """
    total = sum(sizes.values())
    low, high = min(measures.values()), max(measures.values())
    above = {unit: (m - low) / ((high - low) or 1.0) * 2 * spread for unit, m in measures.items()}
    mean = sum(size * above[unit_of[name]] for name, size in sizes.items()) / total
    targets = {name: (sparsity + mean - above[unit_of[name]]) * sizes[name] for name in sizes}
    for name, target in targets.items():
        if not 0 <= target <= sizes[name] - 1:
            raise PruningError(
                f"allocation gives {name} a sparsity of {target / sizes[name]:.3f}; lower "
                "method.allocation_spread"
            )
    counts = {name: int(target) for name, target in targets.items()}
    missing = floor_count(sparsity * total) - sum(counts.values())
    for name in sorted(targets, key=lambda name: counts[name] - targets[name])[:missing]:
        counts[name] += 1
    # Half a weight more, so that no rounding of p·c·b takes one away.
    return {name: Unstructured((counts[name] + 0.5) / sizes[name]) for name in sizes}
