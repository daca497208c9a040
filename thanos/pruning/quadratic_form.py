"""The layer objective ‖W X‖²_F = tr(W G Wᵀ), row by row."""

import torch
from torch import Tensor

from .memory import row_segments

_COLUMNS = 512


def row_energies(W: Tensor, G: Tensor, memory_budget: int) -> Tensor:
    """h_i = W_i G W_iᵀ = ‖W_i X‖² for every row, (c,).

    G is symmetric: a block to the right of the diagonal is multiplied once and counted twice.

    Args:
        W: (c, b).
        G: (b, b).
        memory_budget: bytes that the temporaries may take.
    """
    b = G.shape[0]
    energies = W.new_zeros(len(W))
    for rows in row_segments(len(W), b * W.element_size(), memory_budget):
        part = W[rows]
        for i1 in range(0, b, _COLUMNS):
            i2 = min(b, i1 + _COLUMNS)
            block = part[:, i1:i2]
            energies[rows] += torch.linalg.vecdot(block @ G[i1:i2, i1:i2], block)
            if i2 < b:
                right = part[:, i2:] @ G[i2:, i1:i2]  # (rows, i2 − i1)
                energies[rows] += 2 * torch.linalg.vecdot(right, block)
    return energies
