"""Thanos' updates: what is removed of a block, or of the layer, is removed all at once.

Both work on W (c, b) in place.
"""

import torch
from torch import Tensor

from thanos.accelerator import widest

from .conjugate_gradient import solve_masked
from .factorization import InverseFactor, cholesky_damped
from .memory import row_segments

# Relative residual at which a row of the joint update counts as solved.
_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}


def joint_update(
    W: Tensor, factor: InverseFactor, i1: int, i2: int, mask: Tensor, memory_budget: int
) -> int:
    """Thanos' update (section 4): each row loses its set q of the block at once.

    Solves λ [A]_qq = w_q with A = (G[i1:, i1:])⁻¹ for all rows by masked conjugate gradients, then
    W[:, i1:] −= Λ A[block, :]. Rows that do not converge are solved directly.

    Args:
        W: (c, b), changed in place.
        factor: of the damped Gram matrix.
        i1: first column of the block.
        i2: one past its last column.
        mask: (c, i2 − i1) bool, what is removed.
        memory_budget: bytes that the temporaries may take.

    Returns:
        The number of rows solved directly.
    """
    w = i2 - i1
    A = factor.trailing_inverse(i1, i2)  # (w, b − i1)
    block = A[:, :w].contiguous()
    direct = 0
    # The solver holds six (rows, w) matrices, and while it puts rows aside four twice.
    for rows in row_segments(len(W), 10 * w * W.element_size(), memory_budget):
        W_rows, M = W[rows], mask[rows]
        solution = solve_masked(
            block, W_rows[:, i1:i2], M, tolerance=_TOLERANCE[W.dtype], max_iterations=2 * w + 8
        )
        Lambda = solution.x
        if not solution.complete:
            failed = (~solution.converged).nonzero().squeeze(1)
            Lambda[failed] = _solve_directly(block, W_rows[failed, i1:i2], M[failed], memory_budget)
            direct += len(failed)
        W_rows[:, i1:].addmm_(Lambda, A, alpha=-1)
        W_rows[:, i1:i2].masked_fill_(M, 0)
    return direct


def joint_column_update(
    W: Tensor, G: Tensor, damping: float, removed: Tensor, memory_budget: int
) -> float:
    """Thanos' structured update (section 5): all removed columns Q at once, the same in every row.

    With K the kept columns the optimum is W_K + W_Q G_QK (G_KK)⁻¹: one factorisation, of G_KK.

    Args:
        W: (c, b), changed in place.
        G: (b, b) undamped Gram matrix, positive on the diagonal.
        damping: λ to begin with.
        removed: (b,) bool, the columns Q.
        memory_budget: bytes that the temporaries of the rows may take.

    Returns:
        The λ used.
    """
    K, Q = (~removed).nonzero().squeeze(1), removed.nonzero().squeeze(1)
    L, used = cholesky_damped(G[K][:, K], damping, G.diagonal().mean())
    T = torch.cholesky_solve(G[K][:, Q], L)  # (|K|, |Q|)
    for rows in row_segments(len(W), 2 * len(K) * W.element_size(), memory_budget):
        W[rows, K] += W[rows][:, Q] @ T.T
    W[:, Q] = 0
    return used


def _solve_directly(A: Tensor, rhs: Tensor, mask: Tensor, memory_budget: int) -> Tensor:
    """Cholesky solution of [A]_qq x_q = rhs_q for each row, in float64 if there is; (rows, w)."""
    w, wide = A.shape[0], widest(A.device)
    x = torch.zeros_like(rhs)
    identity = torch.eye(w, dtype=torch.bool, device=A.device)
    for rows in row_segments(len(rhs), 3 * w * w * 8, memory_budget):
        M = mask[rows]
        inside = M[:, :, None] & M[:, None, :]
        # Off its support a row gets the identity, so that all rows share one batched factorisation.
        systems = torch.where(inside, A.to(wide), (identity & ~inside).to(wide))
        L = torch.linalg.cholesky(systems)
        solved = torch.cholesky_solve((rhs[rows] * M).to(wide)[:, :, None], L)
        x[rows] = solved[:, :, 0].to(x.dtype)
    return x
