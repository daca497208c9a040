"""The alternating update: mask and weights move together (ADMM; arXiv 2401.02938, 2406.07831).

The columns are scaled by the metric, D = diag(s): V₀ = W D, Ḡ = D⁻¹ G D⁻¹ + λ m I with m the mean
of the diagonal of D⁻¹ G D⁻¹. The splitting V = Z, with V to have a small loss and Z to have the
pattern, and U the scaled multiplier, repeats

    Z = (V + U) without its smallest entries,  U ← U + V − Z,
    V = (V₀ Ḡ + ρ m (Z − U)) (Ḡ + ρ m I)⁻¹.

Z and U have no entry in common, so that S = V + U is all the state there is: with M the mask of its
smallest entries and P = ρ m (Ḡ + ρ m I)⁻¹ one iteration is

    S ← V₀ + (S∘(1 − 2M) − V₀) P + S∘M,

one product of (c, b) by (b, b), row segment by row segment and in place.
"""

from dataclasses import replace

import torch
from torch import Tensor

from thanos.accelerator import widest

from .composition import Alternation
from .errors import PruningError
from .factorization import factorize
from .masking import Layer, Pruned, column_sums, group_mask, row_mask
from .memory import row_segments
from .patterns import Pattern, SemiStructured, Structured, floor_count
from .quadratic_form import row_energies
from .selection import choose_smallest, smallest_columns


def resolvent(G: Tensor, scale: Tensor, damping: float, penalty: float) -> Tensor:
    """P = ρ m (D⁻¹ G D⁻¹ + (λ + ρ) m I)⁻¹, (b, b): by ρ it is regular whatever G is.

    Args:
        G: (b, b) Gram matrix; zeros on the diagonal (dead inputs) count as ones.
        scale: (b,) positive column scales s, in the dtype to compute in.
        damping: λ.
        penalty: ρ.

    Raises:
        PruningError: λ is negative.
    """
    if not damping >= 0:
        raise PruningError(f"damping {damping:g} must be at least 0")
    scaled = G.to(scale.dtype, copy=True).div_(scale).div_(scale[:, None])
    diagonal = scaled.diagonal()
    mean = torch.where(diagonal == 0, 1, diagonal).mean()
    U = factorize(scaled, damping + penalty, scale.dtype).U
    del scaled, diagonal
    return (U.T @ U).mul_(penalty * mean)


def prune_alternating(
    W: Tensor,
    target: Tensor,
    pattern: Pattern,
    layer: Layer,
    P: Tensor,
    alternation: Alternation,
    given: Tensor | None = None,
) -> Pruned:
    """Prune W (rows, b), which is changed in place, from its dense weights.

    Where the loss of all rows is larger than at the start, which is the first mask without any
    move, the start is what is kept.

    Args:
        W: (rows, b), zero in the columns of dead inputs.
        target: (rows, b) W as it is, of any floating-point dtype; dead columns do not matter.
        pattern: to be reached.
        layer: with its Gram matrix, and positive column scales.
        P: (b, b), see `resolvent`.
        alternation: number of iterations, penalty and schedule.
        given: (rows, b) bool, a mask that stays as it is.
    """
    assert layer.G is not None
    scale, alive = layer.scale, layer.scale * (layer.G.diagonal() != 0)
    unscaled = replace(layer, scale=torch.ones_like(scale))

    def mask_of(share: float) -> Tensor:
        return _choose(W, pattern, unscaled, share) if given is None else given

    def back_to_start() -> Tensor:
        for rows in row_segments(len(W), 2 * W.shape[1] * W.element_size(), layer.memory_budget):
            W[rows] = target[rows].to(W.dtype) * alive
        return mask_of(1.0)

    mask = back_to_start()
    before = _loss(W, target, mask, layer)
    for iteration in range(1, alternation.iterations + 1):
        mask = mask_of(alternation.share(iteration))
        for rows in row_segments(len(W), 5 * W.shape[1] * W.element_size(), layer.memory_budget):
            _iterate(W[rows], target[rows].to(W.dtype) * alive, mask[rows], P)
    mask = mask_of(1.0)
    kept_start = not _loss(W, target, mask, layer) <= before
    if kept_start:
        mask = back_to_start()
    W.masked_fill_(mask, 0).div_(scale)
    return Pruned(mask, layer.damping, kept_start=kept_start)


def _iterate(S: Tensor, V0: Tensor, M: Tensor, P: Tensor) -> None:
    """One iteration of some rows; by itself, so that nothing of it outlives them."""
    T = torch.where(M, -S, S).sub_(V0)
    S.mul_(M).add_(V0).addmm_(T, P)


def _loss(S: Tensor, target: Tensor, mask: Tensor, layer: Layer) -> float:
    """‖(W − Ŵ) X‖² of what the scaled weights S are without the masked entries."""
    assert layer.G is not None
    loss = 0.0
    for rows in row_segments(len(S), 6 * S.shape[1] * S.element_size(), layer.memory_budget):
        pruned = S[rows].masked_fill(mask[rows], 0).div_(layer.scale)
        budget = layer.memory_budget // 2
        energies = row_energies(target[rows], layer.G, budget, minus=pruned)
        loss += float(energies.to(widest(S.device)).sum())
    return loss


def _choose(S: Tensor, pattern: Pattern, layer: Layer, share: float) -> Tensor:
    """The mask of the smallest entries of S, of that share of what the pattern removes."""
    rows, b = S.shape
    if isinstance(pattern, SemiStructured):
        removed = round(share * (pattern.m - pattern.n))
        return group_mask(S, layer.scale, removed, pattern.m, layer.memory_budget)
    if isinstance(pattern, Structured):
        units = pattern.removed(layer.rows, b, rows, layer.unit) // layer.unit
        losses = column_sums(S, 2, layer.memory_budget)
        columns = smallest_columns(losses, layer.unit * round(share * units), layer.unit)
        return columns.expand(rows, -1)
    count = share * pattern.p * layer.rows
    if layer.method.scope == "row":
        return row_mask(S, layer.scale, floor_count(count * b / rows), layer.memory_budget)
    if layer.method.scope == "layer":
        return choose_smallest(S, layer.scale, floor_count(count * b)).mask(S, layer.scale)
    mask = torch.empty(S.shape, dtype=torch.bool, device=S.device)
    for i1, i2 in layer.blocks():
        block, scale = S[:, i1:i2], layer.scale[i1:i2]
        choice = choose_smallest(block, scale, floor_count(count * (i2 - i1)))
        mask[:, i1:i2] = choice.mask(block, scale)
    return mask
