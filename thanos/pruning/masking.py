"""Walks a layer block by block: choose a mask, then let the update move what is left."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .composition import Method
from .errors import PruningError
from .factorization import InverseFactor
from .memory import row_segments
from .patterns import (
    HeadsAndNeurons,
    Pattern,
    SemiStructured,
    Structured,
    Unstructured,
    floor_count,
)
from .selection import (
    Choice,
    choose_smallest,
    smallest_columns,
    smallest_per_group,
    smallest_per_row,
)
from .sequential import sequential_update
from .updates import joint_column_update, joint_update

# How far the share of zeros that a given mask makes may be from the pattern's, besides one weight
# per row: a dense model has some zeros of its own.
TOLERATED = 0.01


@dataclass(frozen=True)
class Layer:
    """What pruning the rows of one layer takes besides the rows themselves.

    Attributes:
        method: metric × scope × update.
        rows: c, rows of the whole layer; counts are shares of it even if outlier rows stay out.
        scale: (b,) column scales of the metric.
        factor: inverse factor of the damped Gram matrix, where the method needs it.
        G: (b, b) Gram matrix, where the method needs it.
        block_size: B.
        damping: λ to begin with.
        memory_budget: bytes that temporaries may take.
        unit: columns that a structured pattern removes together.
    """

    method: Method
    rows: int
    scale: Tensor
    factor: InverseFactor | None
    G: Tensor | None
    block_size: int
    damping: float
    memory_budget: int
    unit: int = 1

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First and one past the last column of every block; the last may be ragged."""
        b = len(self.scale)
        for i1 in range(0, b, self.block_size):
            yield i1, min(b, i1 + self.block_size)


@dataclass(frozen=True)
class Pruned:
    """Outcome of pruning rows in place."""

    mask: Tensor  # (rows, b) bool, True where removed
    damping: float | None
    rows_solved_directly: int = 0
    kept_start: bool | None = None  # of the alternating update: whether it ended where it began


class Chooser(Protocol):
    """Gives the mask of columns i1:i2 when the walk reaches them."""

    def __call__(self, W: Tensor, i1: int, i2: int) -> Tensor: ...


def prune_unstructured(W: Tensor, pattern: Unstructured, layer: Layer) -> Pruned:
    """Remove the smallest entries over the method's scope; W (rows, b) is changed in place."""
    return _walk(W, layer, _unstructured_chooser(W, pattern.p, layer))


def prune_semi_structured(W: Tensor, pattern: SemiStructured, layer: Layer) -> Pruned:
    """Keep n of every m consecutive weights of a row; W (rows, b) is changed in place."""
    removed, m = pattern.m - pattern.n, pattern.m

    def choose(W: Tensor, i1: int, i2: int) -> Tensor:
        return group_mask(W[:, i1:i2], layer.scale[i1:i2], removed, m, layer.memory_budget)

    if layer.method.update != "sequential":
        return _walk(W, layer, choose)

    def choose_group(Wt: Tensor, j1: int, j2: int) -> Tensor:
        return smallest_per_group(Wt.T.abs() * layer.scale[j1:j2], removed, m).T

    assert layer.factor is not None
    mask = torch.empty(W.shape, dtype=torch.bool, device=W.device)
    for i1, i2 in layer.blocks():
        mask[:, i1:i2] = sequential_update(W, layer.factor, i1, i2, None, choose_group, group=m)
    return Pruned(mask, layer.factor.damping)


def prune_structured(W: Tensor, pattern: Structured, layer: Layer) -> Pruned:
    """Remove whole columns; W (rows, b) is changed in place.

    Without an update a column's loss is the mean of its scores, as the baselines have it; with one
    it is the sum of their squares, the loss of removing the column (paper, section 5). Of columns
    that go together the losses are added.
    """
    b = W.shape[1]
    s, unit = pattern.removed(layer.rows, b, len(W), layer.unit), layer.unit
    removed = torch.zeros(b, dtype=torch.bool, device=W.device)
    damping = None
    if layer.method.update == "sequential":
        assert layer.factor is not None
        damping = layer.factor.damping
        for i1, i2 in layer.blocks():
            quota = floor_count(s * i2 / b) - floor_count(s * i1 / b)
            losses = (W[:, i1:i2] * layer.scale[i1:i2]).square().sum(0)
            removed[i1:i2] = smallest_columns(losses, quota, unit)
            mask = removed[i1:i2].expand(len(W), -1)
            sequential_update(W, layer.factor, i1, i2, mask)
    elif layer.method.update == "joint":
        assert layer.G is not None
        losses = column_sums(W, 2, layer.memory_budget) * layer.scale**2
        removed = smallest_columns(losses, s, unit)
        damping = joint_column_update(W, layer.G, layer.damping, removed, layer.memory_budget)
    else:
        losses = column_sums(W, 1, layer.memory_budget) * layer.scale
        removed = smallest_columns(losses, s, unit)
        W[:, removed] = 0
    return Pruned(removed.expand(len(W), -1), damping)


def check_mask(
    mask: Tensor, shape: tuple[int, int], pattern: Pattern, outlier_fraction: float, unit: int = 1
) -> None:
    """Whether a given mask (c, b) has the pattern; rows that it leaves dense count as outliers.

    One without any zero has a pattern of sparsity 0 only.

    Raises:
        PruningError: it has not; the message says in what.
    """
    if tuple(mask.shape) != shape:
        raise PruningError(f"the mask is of {tuple(mask.shape)} weights, the layer of {shape}")
    if outlier_fraction:
        raise PruningError(
            "a mask that is given says itself which rows stay dense; leave outlier_fraction out"
        )
    rows = mask[mask.any(1)]
    if not len(rows) and pattern.sparsity:
        raise PruningError("the mask removes nothing; name the layer in skip to leave it dense")
    if isinstance(pattern, SemiStructured):
        fits = bool((rows.unflatten(1, (-1, pattern.m)).sum(2) >= pattern.m - pattern.n).all())
    else:
        fits = not isinstance(pattern, Structured) or bool((rows == rows[:1]).all())
        share, slack = pattern.sparsity, TOLERATED + 1 / shape[1]
        if isinstance(pattern, HeadsAndNeurons):
            share = pattern.removed(*shape, shape[0], unit) / shape[1]
            fits &= bool((mask[0].view(-1, unit) == mask[0].view(-1, unit)[:, :1]).all())
        fits &= abs(float(mask.float().mean()) - share) <= slack
    if not fits:
        raise PruningError(
            f"the mask removes {float(mask.float().mean()):.4f} of the weights and does not have "
            f"the pattern {pattern}; give the pattern that it was made for"
        )


def pattern_of(mask: Tensor, kind: Unstructured | SemiStructured) -> Unstructured | SemiStructured:
    """What a given mask (c, b) has of the pattern's kind: its own share, or its own n of m.

    The n is of rows with removals; as large as m where a group of one has none.
    """
    if isinstance(kind, Unstructured):
        return Unstructured(float(mask.float().mean()))
    removed = mask[mask.any(1)].unflatten(1, (-1, kind.m)).sum(2)
    return SemiStructured(kind.m - int(removed.min()) if removed.numel() else kind.m, kind.m)


def prune_given(W: Tensor, pattern: Pattern, layer: Layer, mask: Tensor) -> Pruned:
    """Remove what a mask (rows, b) says; W (rows, b) is changed in place."""
    if isinstance(pattern, Structured) and layer.method.update == "joint":
        assert layer.G is not None
        damping = joint_column_update(W, layer.G, layer.damping, mask[0], layer.memory_budget)
        return Pruned(mask, damping)
    return _walk(W, layer, _fixed(mask))


def _walk(W: Tensor, layer: Layer, choose: Chooser) -> Pruned:
    removed, direct = torch.empty(W.shape, dtype=torch.bool, device=W.device), 0
    for i1, i2 in layer.blocks():
        mask = choose(W, i1, i2)
        if layer.method.update == "none":
            W[:, i1:i2].masked_fill_(mask, 0)
        else:
            assert layer.factor is not None
            if layer.method.update == "sequential":
                sequential_update(W, layer.factor, i1, i2, mask)
            else:
                direct += joint_update(W, layer.factor, i1, i2, mask, layer.memory_budget)
        removed[:, i1:i2] = mask
    return Pruned(removed, layer.factor.damping if layer.factor else None, direct)


def _unstructured_chooser(W: Tensor, p: float, layer: Layer) -> Chooser:
    scope, c, b = layer.method.scope, layer.rows, W.shape[1]
    if scope == "row":
        return _fixed(
            row_mask(W, layer.scale, floor_count(p * c * b / len(W)), layer.memory_budget)
        )
    if scope == "layer":
        return _fixed(choose_smallest(W, layer.scale, floor_count(p * c * b)).mask(W, layer.scale))
    choice: Choice | None = None
    r = floor_count(p * c * b)

    def choose_in_block(W: Tensor, i1: int, i2: int) -> Tensor:
        nonlocal choice
        block, scale = W[:, i1:i2], layer.scale[i1:i2]
        choice = choose_smallest(block, scale, floor_count(p * c * (i2 - i1)), expected=choice)
        return choice.mask(block, scale)

    def choose_in_residual(W: Tensor, i1: int, i2: int) -> Tensor:
        # The r smallest of all columns from i1 on; beyond this block the choice is thrown away.
        nonlocal choice, r
        choice = choose_smallest(W[:, i1:], layer.scale[i1:], r, expected=choice)
        mask = choice.mask(W[:, i1:i2], layer.scale[i1:i2])
        r -= int(mask.sum())
        return mask

    return choose_in_block if scope == "block" else choose_in_residual


def _fixed(mask: Tensor) -> Chooser:
    return lambda W, i1, i2: mask[:, i1:i2]


def row_mask(W: Tensor, scale: Tensor, k: int, memory_budget: int) -> Tensor:
    """Mask of the k smallest of |W_ij|·scale_j in every row, (rows, b) bool."""
    mask = torch.empty(W.shape, dtype=torch.bool, device=W.device)
    for rows in row_segments(len(W), 8 * W.shape[1] * W.element_size(), memory_budget):
        mask[rows] = smallest_per_row(W[rows].abs() * scale, k)
    return mask


def group_mask(W: Tensor, scale: Tensor, removed: int, m: int, memory_budget: int) -> Tensor:
    """Mask of the `removed` smallest of |W_ij|·scale_j in every m consecutive, (rows, b) bool."""
    mask = torch.empty(W.shape, dtype=torch.bool, device=W.device)
    for rows in row_segments(len(W), 4 * W.shape[1] * W.element_size(), memory_budget):
        mask[rows] = smallest_per_group(W[rows].abs() * scale, removed, m)
    return mask


def column_sums(W: Tensor, power: int, memory_budget: int) -> Tensor:
    """Σ_i |W_ij|^power, (b,)."""
    sums = W.new_zeros(W.shape[1])
    for rows in row_segments(len(W), W.shape[1] * W.element_size(), memory_budget):
        sums += W[rows].abs().pow(power).sum(0)
    return sums
