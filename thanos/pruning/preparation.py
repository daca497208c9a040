"""What pruning a layer takes, made ready from its statistics and the method's choices."""

import torch
from torch import Tensor

from .composition import Method, default_block_size
from .errors import PruningError
from .factorization import InverseFactor
from .masking import Layer
from .patterns import Pattern, SemiStructured, Structured
from .statistics import InputStatistics


def prepared_layer(
    W: Tensor,
    c: int,
    method: Method,
    pattern: Pattern,
    statistics: InputStatistics | None,
    block_size: int | None,
    damping: float,
    budget: int,
    unit: int = 1,
) -> Layer:
    """What pruning the rows W (rows, b) of a layer of c rows takes: scales, factor, G, B.

    Raises:
        PruningError: B is below one, or no damping tried makes G positive definite.
    """
    if block_size is None:
        block_size = default_block_size(pattern)
    if block_size < 1:
        raise PruningError(f"block_size {block_size} must be at least 1")
    if isinstance(pattern, SemiStructured):
        block_size = -(-block_size // pattern.m) * pattern.m
    if unit > 1:  # a block need not hold a whole unit, nor as many as there are to choose among
        block_size = W.shape[1]
    columns_at_once = isinstance(pattern, Structured) and method.update == "joint"
    alternates = method.update == "alternating"
    factor = gram = None
    if method.needs_factor:
        assert statistics is not None
        if columns_at_once:
            gram = statistics.regular_gram(W.dtype)
        elif alternates:
            gram = statistics.gram.to(W.dtype)
        if not (columns_at_once or alternates) or method.metric == "sparsegpt":
            factor = statistics.inverse_factor(damping, W.dtype)
    scale = column_scale(method.metric, W, statistics, factor)
    if alternates:  # it divides by them; what a dead input has no scale for is zero already
        scale = torch.where(scale == 0, 1, scale)
    return Layer(
        method=method,
        rows=c,
        scale=scale,
        factor=factor,
        G=gram,
        block_size=block_size,
        damping=damping,
        memory_budget=budget,
        unit=unit,
    )


def column_scale(
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
