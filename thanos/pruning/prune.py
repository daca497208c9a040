"""Pruning of one layer: `prune_weight`."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thanos.accelerator import read, widest

from .alternating import prune_alternating, resolvent
from .composition import Alternation, Method, compose
from .correction import corrected
from .errors import PruningError
from .masking import (
    Layer,
    Pruned,
    check_mask,
    prune_given,
    prune_semi_structured,
    prune_structured,
    prune_unstructured,
)
from .memory import default_memory_budget
from .outliers import beside_outliers, pruned_rows, rows_with_removals
from .patterns import (
    HeadsAndNeurons,
    Pattern,
    SemiStructured,
    Structured,
    check_shape,
    parse_pattern,
)
from .permutation import channel_scale, column_order, permuted_channels
from .precision import exact_matmul
from .preparation import prepared_layer
from .quadratic_form import row_energies
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
        details: counts worth recording: outlier rows, rows solved directly; of the alternating
            update whether it ended where it began; channels that changed places.
        channel_order: (pools, k), which of the `channels` given comes where in weight and mask;
            None without any.
    """

    weight: Tensor
    mask: Tensor
    sparsity: float
    relative_error: float | None
    damping: float | None
    details: dict[str, int]
    channel_order: Tensor | None = None


def required_statistics(
    method: Method,
    outlier_fraction: float = 0.0,
    refine_steps: int = 0,
    outlier_score: str | None = "exact",
    correction: float = 0.0,
) -> Literal["none", "diagonal", "gram"]:
    """The calibration statistics that pruning needs, and choosing the outlier rows."""
    exact = outlier_fraction and outlier_score == "exact"
    if method.needs_factor or refine_steps or correction or exact:
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
    alternation: Alternation = Alternation(),  # noqa: B008 (frozen)
    correction: float = 0.0,
    given_mask: Tensor | None = None,
    outlier_score: str = "exact",
    unit: int = 1,
    channels: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    memory_budget: int | None = None,
    measure_error: bool = True,
) -> PruningResult:
    """Prune a linear layer's weight.

    Args:
        weight: (c, b), out_features × in_features; not modified.
        statistics: of the layer's inputs; None where the method needs none (magnitude).
        method: `magnitude`, `wanda`, `sparsegpt`, `thanos` or a composed one.
        pattern: `0.5` or `unstructured:0.5`, `2:4`, `structured:0.3`, `heads-neurons:0.3`.
        block_size: B, columns per block; default 128, for n:m patterns 512. For n:m it is rounded
            up to whole groups.
        outlier_fraction: α; the ⌈αc⌉ rows of the largest outlier score stay dense, the same for
            every method.
        damping: λ, relative to the mean of diag G.
        refine_steps: conjugate gradient steps after pruning, with the mask fixed.
        metric: replaces the method's metric (see `composition.Method`).
        scope: replaces the method's scope.
        update: replaces the method's update.
        alternation: iterations, penalty and schedule of the alternating update.
        correction: β; the weights are pruned towards W + β W C (G + λ m I)⁻¹, which gives the
            outputs of the dense model, see `correction`; takes statistics with `cross`.
        given_mask: (c, b) bool, what is removed, in place of a choice by metric and scope; rows
            without any removal stay dense. It must have the pattern.
        outlier_score: `exact` h_i = W_i G W_iᵀ = ‖W_i X‖², for which every method needs the Gram
            matrix, or `separable` Σ_j W_ij² G_jj.
        unit: consecutive columns that `heads-neurons` removes together, such as those of a head.
        channels: (pools, k, copies), the columns of input channels that can change places within
            their pool, so that more of the metric stays under an n:m pattern, see `permutation`.
            The result's weight has them in the new order; whoever makes the inputs must follow it.
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
    if not 0 <= correction < float("inf"):
        raise PruningError(f"correction {correction:g} must be at least 0")
    needed = required_statistics(
        composition, outlier_fraction, refine_steps, outlier_score, correction
    )
    _check_input(weight, statistics, needed, method)
    c, b = weight.shape
    if unit != 1 and not isinstance(parsed, HeadsAndNeurons):
        raise PruningError(f"unit {unit} has no meaning for pattern {parsed}; leave it out")
    check_shape(c, b, parsed, outlier_fraction, unit)
    if channels is not None:
        _check_permutation(parsed, given_mask)
    if given_mask is not None:
        check_mask(given_mask, (c, b), parsed, outlier_fraction, unit)
    budget = memory_budget or default_memory_budget(weight.device)
    dense = weight.detach()
    with exact_matmul():
        if correction:
            assert statistics is not None
            dense = corrected(dense, statistics, correction, damping, dtype, budget)
        if given_mask is None:
            rows = pruned_rows(dense, statistics, outlier_fraction, outlier_score, dtype, budget)
            given = None
        else:
            rows = rows_with_removals(given_mask)
            given = given_mask if rows is None else given_mask[rows]
        order = None
        if channels is not None and isinstance(parsed, SemiStructured):
            among = dense if rows is None else dense[rows]
            scale = channel_scale(composition, statistics, dense, dtype)
            channels = channels.to(weight.device)
            order = permuted_channels(among, scale, channels, parsed)
            columns = column_order(channels, order, b)
            dense, statistics = dense[:, columns], statistics and statistics.reordered(columns)
        target = dense if rows is None else dense[rows]
        W = target.to(dtype, copy=True)
        if composition.update != "none":
            assert statistics is not None
            W[:, statistics.dead] = 0
        layer = prepared_layer(
            W, c, composition, parsed, statistics, block_size, damping, budget, unit
        )
        if composition.update == "alternating":
            assert statistics is not None
            P = _shared_resolvent(statistics, layer, alternation)
            pruned = prune_alternating(W, target, parsed, layer, P, alternation, given)
        else:
            pruned = _prune_rows(W, parsed, layer, given)
        if refine_steps:
            assert statistics is not None
            zeros = pruned.mask
            if composition.update != "none":
                zeros = zeros | statistics.dead
            refine(target, W, zeros, statistics.regular_gram(dtype), refine_steps, budget)
        result = beside_outliers(W.to(weight.dtype), rows, dense.to(weight.dtype))
        if not _is_finite(result):
            raise PruningError(
                f"the pruned weight is not finite in {weight.dtype}; use a larger damping"
            )
        measured = [result.count_nonzero()]
        if measure_error and statistics is not None and statistics.has_gram:
            measured += _losses(dense, result, statistics.gram.to(dtype), budget)
        nonzero, *losses = read(*measured)
    return PruningResult(
        weight=result,
        mask=beside_outliers(pruned.mask, rows, torch.zeros_like(weight, dtype=torch.bool)),
        sparsity=(result.numel() - int(nonzero)) / result.numel(),
        relative_error=_relative_error(*losses) if losses else None,
        damping=pruned.damping,
        details={
            "outlier_rows": len(dense) - len(W),
            "rows_solved_directly": pruned.rows_solved_directly,
            **({} if pruned.kept_start is None else {"kept_start": int(pruned.kept_start)}),
            **({} if order is None else {"channels_moved": _moved(order)}),
        },
        channel_order=order,
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


def _check_permutation(pattern: Pattern, given_mask: Tensor | None) -> None:
    if given_mask is not None or not isinstance(pattern, SemiStructured):
        raise PruningError(
            f"channels change places under n:m patterns whose mask is chosen, not under {pattern}"
            + ("" if given_mask is None else " with a mask that is given")
        )


def _is_finite(W: Tensor) -> bool:
    """Whether all entries are finite, without a temporary of the size of W."""
    return all(math.isfinite(end) for end in read(*W.aminmax()))


def _moved(order: Tensor) -> int:
    """Channels that are not where they were."""
    return int((order != torch.arange(order.shape[1], device=order.device)).sum())


def _shared_resolvent(
    statistics: InputStatistics, layer: Layer, alternation: Alternation
) -> Tensor:
    """The matrix of the alternating update; layers that share their inputs share it."""
    assert layer.G is not None
    G = layer.G
    key = (layer.method.metric, layer.damping, alternation.penalty, G.dtype)
    return statistics.shared(
        "resolvent", key, lambda: resolvent(G, layer.scale, layer.damping, alternation.penalty)
    )


def _prune_rows(W: Tensor, pattern: Pattern, layer: Layer, given: Tensor | None) -> Pruned:
    if given is not None:
        return prune_given(W, pattern, layer, given)
    if isinstance(pattern, SemiStructured):
        return prune_semi_structured(W, pattern, layer)
    if isinstance(pattern, Structured):
        return prune_structured(W, pattern, layer)
    return prune_unstructured(W, pattern, layer)


def _losses(W: Tensor, pruned: Tensor, G: Tensor, budget: int) -> list[Tensor]:
    """‖(W − Ŵ) X‖² and ‖W X‖²."""
    energies = [row_energies(W, G, budget, minus=minus) for minus in (pruned, None)]
    return [each.to(widest(G.device)).sum() for each in energies]


def _relative_error(lost: float, total: float) -> float:
    """What is lost of a layer's outputs; zero for a layer without any."""
    # With a singular G the form can round to slightly below zero.
    return max(0.0, lost / total) if total else 0.0
