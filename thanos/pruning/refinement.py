"""Refinement of a pruned layer: better weights for its mask, by conjugate gradient steps.

Block-wise pruning freezes the columns to the left of each block. With the mask fixed, the steps
move all kept weights towards the minimum of ‖(W − Ŵ) X‖² (ALPS, arXiv 2406.07831, ends alike).
"""

import torch
from torch import Tensor

from .conjugate_gradient import solve_masked
from .memory import row_segments
from .quadratic_form import row_energies


def refine(
    W: Tensor, pruned: Tensor, zeros: Tensor, G: Tensor, steps: int, memory_budget: int
) -> None:
    """Refine `pruned` in place; no row's loss is higher than before.

    Args:
        W: (c, b) dense weights, the target, of any floating-point dtype.
        pruned: (c, b) pruned weights, changed in place.
        zeros: (c, b) bool, the entries that stay zero.
        G: (b, b) undamped Gram matrix, positive on the diagonal.
        steps: conjugate gradient steps.
        memory_budget: bytes that the temporaries may take.
    """
    for rows in row_segments(len(W), 10 * W.shape[1] * G.element_size(), memory_budget):
        error = W[rows].to(G.dtype) - pruned[rows]
        step = solve_masked(
            G, error @ G, ~zeros[rows], tolerance=torch.finfo(G.dtype).eps, max_iterations=steps
        ).x
        # Rounding can undo the decrease for a row that has nothing left to gain.
        before = row_energies(error, G, memory_budget)
        after = row_energies(error, G, memory_budget, minus=step)
        pruned[rows] += torch.where((after < before)[:, None], step, 0)
