"""What the surviving weights do: the sequential and the joint update of one block of columns.

Both work on W (c, b) in place, remove columns i1:i2 where the mask says so and move what lies to
the right by one matrix product with rows i1:i2 of U.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .conjugate_gradient import solve_masked
from .factorization import InverseFactor, cholesky_damped
from .memory import row_segments

# Removed columns are eliminated one by one within leaves this wide, by matrix products above.
_LEAF = 8

# Relative residual at which a row of the joint update counts as solved.
_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13}

# Chooses the mask of columns j1:j2 from their current weights (j2 − j1, c), transposed like them.
GroupChoice = Callable[[Tensor, int, int], Tensor]


def sequential_update(
    W: Tensor,
    factor: InverseFactor,
    i1: int,
    i2: int,
    mask: Tensor | None,
    choose_group: GroupChoice | None = None,
    group: int = _LEAF,
) -> Tensor:
    """SparseGPT's update (its algorithm 1): e = w_j/U_jj for removed w_j, W[:, j:] −= e·U[j, j:].

    Columns are eliminated in halves: what a half removes reaches the other half, and finally the
    columns right of i2, by one matrix product; only `group` columns are walked one by one.

    Args:
        W: (c, b), changed in place.
        factor: of the damped Gram matrix.
        i1: first column of the block.
        i2: one past its last column.
        mask: (c, i2 − i1) bool, or None when `choose_group` picks it.
        choose_group: picks the mask of `group` columns when the first of them is reached.
        group: columns walked one by one.

    Returns:
        The mask, (c, i2 − i1) bool.
    """
    U = factor.U[i1:i2, i1:i2]
    Wt = W[:, i1:i2].T.contiguous()  # (w, c): a column of W is contiguous here
    Et = torch.zeros_like(Wt)
    Mt = torch.zeros_like(Wt, dtype=torch.bool) if mask is None else mask.T.contiguous()

    def choose(j1: int, j2: int) -> None:
        if choose_group is not None:
            Mt[j1:j2] = choose_group(Wt[j1:j2], i1 + j1, i1 + j2)

    _eliminate(U, Wt, Et, Mt, choose, group, 0, i2 - i1)
    W[:, i1:i2] = Wt.masked_fill_(Mt, 0).T
    W[:, i2:].addmm_(Et.T, factor.U[i1:i2, i2:], alpha=-1)
    return Mt.T


def _eliminate(
    U: Tensor,
    Wt: Tensor,
    Et: Tensor,
    Mt: Tensor,
    choose: Callable[[int, int], None],
    group: int,
    j1: int,
    j2: int,
) -> None:
    """Eliminate columns j1:j2, whose errors go to Et; a closure that calls itself would live on."""
    if j2 - j1 <= group:
        choose(j1, j2)
        removed = Mt[j1:j2] / U.diagonal()[j1:j2, None]
        for j in range(j1, j2):
            torch.mul(Wt[j], removed[j - j1], out=Et[j])
            if j + 1 < j2:
                Wt[j + 1 : j2].addr_(U[j, j + 1 : j2], Et[j], alpha=-1)
        return
    groups = -(-(j2 - j1) // group)
    middle = j1 + group * (groups // 2)
    _eliminate(U, Wt, Et, Mt, choose, group, j1, middle)
    Wt[middle:j2].addmm_(U[j1:middle, middle:j2].T, Et[j1:middle], alpha=-1)
    _eliminate(U, Wt, Et, Mt, choose, group, middle, j2)


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
        failed = (~solution.converged).nonzero().squeeze(1)
        if len(failed):
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
    """Cholesky solution of [A]_qq x_q = rhs_q for each row, in float64; (rows, w)."""
    w = A.shape[0]
    x = torch.zeros_like(rhs)
    identity = torch.eye(w, dtype=torch.bool, device=A.device)
    for rows in row_segments(len(rhs), 3 * w * w * 8, memory_budget):
        M = mask[rows]
        inside = M[:, :, None] & M[:, None, :]
        # Off its support a row gets the identity, so that all rows share one batched factorisation.
        systems = torch.where(inside, A.double(), (identity & ~inside).double())
        L = torch.linalg.cholesky(systems)
        solved = torch.cholesky_solve((rhs[rows] * M).double()[:, :, None], L)
        x[rows] = solved[:, :, 0].to(x.dtype)
    return x
