"""Corrected targets: weights that make up for what earlier layers lost (GPTAQ, arXiv 2504.02692).

A layer's inputs are X in the model pruned so far and X̄ in the dense model. Pruning against G = X Xᵀ
keeps W X and with it the errors of the layers before. The dense outputs W X̄ are what
W̃ = W + W C G⁻¹ with C = (X̄ − X) Xᵀ comes closest to.
"""

import torch
from torch import Tensor

from .memory import row_segments
from .statistics import InputStatistics


def corrected(
    W: Tensor,
    statistics: InputStatistics,
    beta: float,
    damping: float,
    dtype: torch.dtype,
    memory_budget: int,
) -> Tensor:
    """W + β W C (G + λ m I)⁻¹ with m = mean(diag G), (c, b).

    Args:
        W: (c, b), of any floating-point dtype; not modified.
        statistics: of the layer's inputs, with C.
        beta: β, the share of the way to the dense outputs.
        damping: λ to begin with, as in `factorize`.
        dtype: to compute in, and of the result.
        memory_budget: bytes that the temporaries of the rows may take.

    Raises:
        PruningError: the statistics lack C, or no damping tried makes G positive definite.
    """

    def make() -> Tensor:
        U = statistics.inverse_factor(damping, dtype).U
        return statistics.cross.to(dtype) @ U.T @ U

    moves = statistics.shared("correction", (damping, dtype), make)
    target = W.to(dtype, copy=True)
    for rows in row_segments(len(W), W.shape[1] * target.element_size(), memory_budget):
        target[rows].addmm_(W[rows].to(dtype), moves, alpha=beta)
    return target
