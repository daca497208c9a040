"""The layer objective ‖W X‖²_F = tr(W G Wᵀ), row by row."""

import torch
from torch import Tensor

from .memory import row_segments

_COLUMNS = 512


def row_energies(
    W: Tensor, G: Tensor, memory_budget: int, *, minus: Tensor | None = None
) -> Tensor:
    """h_i = W_i G W_iᵀ = ‖W_i X‖² for every row, (c,).

    G is symmetric: a block to the right of the diagonal is multiplied once and counted twice.

    Args:
        W: (c, b), of any floating-point dtype.
        G: (b, b), in the dtype to compute in.
        memory_budget: bytes that the temporaries may take.
        minus: (c, b), subtracted from W.
    """
    b = G.shape[0]
    energies = G.new_zeros(len(W))
    # A segment of W in the dtype of G, the same of `minus`, and a product of a few columns.
    for rows in row_segments(len(W), 3 * b * G.element_size(), memory_budget):
        part = W[rows].to(G.dtype)
        if minus is not None:
            part = part - minus[rows].to(G.dtype)
        for i1 in range(0, b, _COLUMNS):
            i2 = min(b, i1 + _COLUMNS)
            block = part[:, i1:i2]
            energies[rows] += torch.linalg.vecdot(block @ G[i1:i2, i1:i2], block)
            if i2 < b:
                right = part[:, i2:] @ G[i2:, i1:i2]  # (rows, i2 − i1)
                energies[rows] += 2 * torch.linalg.vecdot(right, block)
    return energies


def separable_energies(W: Tensor, squared_norms: Tensor, memory_budget: int) -> Tensor:
    """Σ_j W_ij² ‖X_j‖² for every row, (c,): h_i if the inputs were uncorrelated.

    Args:
        W: (c, b), of any floating-point dtype.
        squared_norms: (b,) G_jj, in the dtype to compute in.
        memory_budget: bytes that the temporaries may take.
    """
    energies = squared_norms.new_empty(len(W))
    for rows in row_segments(len(W), 2 * W.shape[1] * squared_norms.element_size(), memory_budget):
        energies[rows] = W[rows].to(squared_norms.dtype).square() @ squared_norms
    return energies
