"""Pruning of one layer: `prune_weight`."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .composition import Method, compose, default_block_size
from .errors import PruningError
from .factorization import InverseFactor
from .masking import Layer, Pruned, prune_semi_structured, prune_structured, prune_unstructured
from .memory import default_memory_budget
from .patterns import (
    Pattern,
    SemiStructured,
    Structured,
    ceil_count,
    check_shape,
    parse_pattern,
)
from .precision import exact_matmul
from .quadratic_form import row_energies, separable_energies
from .refinement import refine
from .statistics import InputStatistics

OUTLIER_SCORES = ("exact", "separable")


@dataclass(frozen=True)
class PruningResult:
    """A pruned layer.

    Attributes:
        weight: (c, b) pruned weight, in the dtype of the input.
        mask: (c, b) bool, True where a weight was removed.
        sparsity: share of exact zeros in `weight`.
        relative_error: ‖(W − Ŵ) X‖² / ‖W X‖²; None without a Gram matrix.
        damping: λ that the factorisation took; None if the method has none.
        details: counts worth recording: outlier rows, rows solved directly.
    """

    weight: Tensor
    mask: Tensor
    sparsity: float
    relative_error: float | None
    damping: float | None
    details: dict[str, int]


def required_statistics(
    method: Method,
    outlier_fraction: float = 0.0,
    refine_steps: int = 0,
    outlier_score: str | None = "exact",
) -> Literal["none", "diagonal", "gram"]:
    """The calibration statistics that pruning needs, and choosing the outlier rows."""
    if method.needs_factor or refine_steps or (outlier_fraction and outlier_score == "exact"):
        return "gram"
    return "diagonal" if method.metric == "wanda" or outlier_fraction else "none"


@torch.no_grad()
def prune_weight(
    weight: Tensor,
    statistics: InputStatistics | None,
    method: str | Method = "thanos",
    pattern: str | float | Pattern = "0.5",
    *,
    block_size: int | None = None,
    outlier_fraction: float = 0.0,
    damping: float = 0.01,
    refine_steps: int = 0,
    metric: str | None = None,
    scope: str | None = None,
    update: str | None = None,
    outlier_score: str = "exact",
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    measure_error: bool = True,
) -> PruningResult:
    """Prune a linear layer's weight.

    Args:
        weight: (c, b), out_features × in_features; not modified.
        statistics: of the layer's inputs; None where the method needs none (magnitude).
        method: `magnitude`, `wanda`, `sparsegpt`, `thanos` or a composed one.
        pattern: `0.5` or `unstructured:0.5`, `2:4`, `structured:0.3`.
        block_size: B, columns per block; default 128, for n:m patterns 512. For n:m it is rounded
            up to whole groups.
        outlier_fraction: α; the ⌈αc⌉ rows of the largest outlier score stay dense, the same for
            every method.
        damping: λ, relative to the mean of diag G.
        refine_steps: conjugate gradient steps after pruning, with the mask fixed.
        metric: replaces the method's metric (see `composition.Method`).
        scope: replaces the method's scope.
        update: replaces the method's update.
        outlier_score: `exact` h_i = W_i G W_iᵀ = ‖W_i X‖², for which every method needs the Gram
            matrix, or `separable` Σ_j W_ij² G_jj.
        dtype: float32 or float64, in which everything is computed.
        memory_budget: bytes for temporaries beyond the weight, its pruned copy, the mask, G and U;
            default from the free memory.
        measure_error: compute the relative error, if there is a Gram matrix: two products of the
            size of W G.

    Raises:
        PruningError: for an impossible request, non-finite input, or a Gram matrix that no damping
            tried makes positive definite.
    """
    parsed = parse_pattern(pattern)
    composition = compose(method, parsed, metric, scope, update)
    if outlier_score not in OUTLIER_SCORES:
        raise PruningError(
            f"unknown outlier_score {outlier_score!r}; known: {', '.join(OUTLIER_SCORES)}"
        )
    if refine_steps < 0:
        raise PruningError(f"refine_steps {refine_steps} is negative")
    needed = required_statistics(composition, outlier_fraction, refine_steps, outlier_score)
    _check_input(weight, statistics, needed, method)
    c, b = weight.shape
    check_shape(c, b, parsed, outlier_fraction)
    budget = memory_budget or default_memory_budget(weight.device)
    dense = weight.detach()
    with exact_matmul():
        rows = _pruned_rows(dense, statistics, outlier_fraction, outlier_score, dtype, budget)
        target = dense if rows is None else dense[rows]
        W = target.to(dtype, copy=True)
        if composition.update != "none":
            assert statistics is not None
            W[:, statistics.dead] = 0
        layer = _layer(W, len(dense), composition, parsed, statistics, block_size, damping, budget)
        pruned = _prune_rows(W, parsed, layer)
        if refine_steps:
            assert statistics is not None
            zeros = pruned.mask
            if composition.update != "none":
                zeros = zeros | statistics.dead
            refine(target, W, zeros, statistics.regular_gram(dtype), refine_steps, budget)
        result = _beside_outliers(W.to(weight.dtype), rows, dense)
        if not _is_finite(result):
            raise PruningError(
                f"the pruned weight is not finite in {weight.dtype}; use a larger damping"
            )
        error = None
        if measure_error and statistics is not None and statistics.has_gram:
            error = _relative_error(dense, result, statistics.gram.to(dtype), budget)
    return PruningResult(
        weight=result,
        mask=_beside_outliers(pruned.mask, rows, torch.zeros_like(dense, dtype=torch.bool)),
        sparsity=(result.numel() - int(result.count_nonzero())) / result.numel(),
        relative_error=error,
        damping=pruned.damping,
        details={
            "outlier_rows": len(dense) - len(W),
            "rows_solved_directly": pruned.rows_solved_directly,
        },
    )


def _check_input(
    weight: Tensor, statistics: InputStatistics | None, needed: str, method: str | Method
) -> None:
    if weight.dim() != 2:
        raise PruningError(f"the weight has shape {tuple(weight.shape)}; expected (rows, columns)")
    if not _is_finite(weight):
        raise PruningError("the weight has non-finite entries")
    if statistics is None:
        if needed != "none":
            raise PruningError(f"method {method} needs calibration statistics")
        return
    if statistics.in_features != weight.shape[1]:
        raise PruningError(
            f"the statistics have {statistics.in_features} inputs, the weight {weight.shape[1]}"
        )
    if needed != "none" and statistics.tokens == 0:
        raise PruningError("the statistics hold no token; update them with calibration inputs")
    if not bool(statistics.squared_norms.isfinite().all()):
        raise PruningError("the calibration inputs have non-finite entries")


def _is_finite(W: Tensor) -> bool:
    """Whether all entries are finite, without a temporary of the size of W."""
    return all(bool(end.isfinite()) for end in W.aminmax())


def _pruned_rows(
    W: Tensor,
    statistics: InputStatistics | None,
    alpha: float,
    score: str,
    dtype: torch.dtype,
    budget: int,
) -> Tensor | None:
    """Indices of all rows but the ⌈αc⌉ with the largest h_i, ties by index; None for all."""
    outliers = ceil_count(alpha * len(W))
    if outliers == 0:
        return None
    assert statistics is not None
    if score == "exact":
        h = row_energies(W, statistics.gram.to(dtype), budget)
    else:
        h = separable_energies(W, statistics.squared_norms.to(dtype), budget)
    return h.argsort(descending=True, stable=True)[outliers:].sort().values


def _beside_outliers(values: Tensor, rows: Tensor | None, outliers: Tensor) -> Tensor:
    """The whole layer: `values` in the pruned rows, in the others those of `outliers`."""
    if rows is None:
        return values.contiguous()
    return outliers.index_copy(0, rows, values)


def _layer(
    W: Tensor,
    c: int,
    method: Method,
    pattern: Pattern,
    statistics: InputStatistics | None,
    block_size: int | None,
    damping: float,
    budget: int,
) -> Layer:
    """Gather what the walk over the blocks needs: column scales, factor or Gram matrix, B."""
    if block_size is None:
        block_size = default_block_size(pattern)
    if block_size < 1:
        raise PruningError(f"block_size {block_size} must be at least 1")
    if isinstance(pattern, SemiStructured):
        block_size = -(-block_size // pattern.m) * pattern.m
    columns_at_once = isinstance(pattern, Structured) and method.update == "joint"
    factor = gram = None
    if method.needs_factor:
        assert statistics is not None
        if columns_at_once:
            gram = statistics.regular_gram(W.dtype)
        if not columns_at_once or method.metric == "sparsegpt":
            factor = statistics.inverse_factor(damping, W.dtype)
    return Layer(
        method=method,
        rows=c,
        scale=_column_scale(method.metric, W, statistics, factor),
        factor=factor,
        G=gram,
        block_size=block_size,
        damping=damping,
        memory_budget=budget,
    )


def _column_scale(
    metric: str, W: Tensor, statistics: InputStatistics | None, factor: InverseFactor | None
) -> Tensor:
    """The metric as scales s_j of the score |W_ij|·s_j, (b,)."""
    if metric == "wanda":
        assert statistics is not None
        return statistics.squared_norms.to(W.dtype).sqrt()
    if metric == "sparsegpt":
        assert factor is not None
        return factor.U.diagonal().reciprocal()
    return W.new_ones(W.shape[1])


def _prune_rows(W: Tensor, pattern: Pattern, layer: Layer) -> Pruned:
    if isinstance(pattern, SemiStructured):
        return prune_semi_structured(W, pattern, layer)
    if isinstance(pattern, Structured):
        return prune_structured(W, pattern, layer)
    return prune_unstructured(W, pattern, layer)


def _relative_error(W: Tensor, pruned: Tensor, G: Tensor, budget: int) -> float:
    """‖(W − Ŵ) X‖² / ‖W X‖²; zero for a layer without any output."""
    lost = float(row_energies(W, G, budget, minus=pruned).double().sum())
    total = float(row_energies(W, G, budget).double().sum())
    # With a singular G the form can round to slightly below zero.
    return max(0.0, lost / total) if total else 0.0
