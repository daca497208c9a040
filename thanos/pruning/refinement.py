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
) -> Tensor:
    """Return the refined weights, (c, b); no row's loss is higher than before.

    Args:
        W: (c, b) dense weights, the target.
        pruned: (c, b) pruned weights to start from.
        zeros: (c, b) bool, the entries that stay zero.
        G: (b, b) undamped Gram matrix, positive on the diagonal.
        steps: conjugate gradient steps.
        memory_budget: bytes that the temporaries may take.
    """
    refined = pruned.clone()
    for rows in row_segments(len(W), 10 * W.shape[1] * W.element_size(), memory_budget):
        error = W[rows] - pruned[rows]
        step = solve_masked(
            G, error @ G, ~zeros[rows], tolerance=torch.finfo(W.dtype).eps, max_iterations=steps
        ).x
        # Rounding can undo the decrease for a row that has nothing left to gain.
        before = row_energies(error, G, memory_budget)
        after = row_energies(error - step, G, memory_budget)
        refined[rows] += torch.where((after < before)[:, None], step, 0)
    return refined
