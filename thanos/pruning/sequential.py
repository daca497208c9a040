"""SparseGPT's update: the removed columns of a block are eliminated one after the other.

Works on W (c, b) in place, removes columns i1:i2 where the mask says so and moves what lies to the
right by one matrix product with rows i1:i2 of U.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .factorization import InverseFactor

# Removed columns are eliminated one by one within leaves this wide, by matrix products above.
_LEAF = 8

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
        columns = zip(Wt[j1:j2], removed, Et[j1:j2], U[j1:j2, j1:j2], strict=True)
        for j, (column, share, error, row) in enumerate(columns, start=1):
            torch.mul(column, share, out=error)
            if j1 + j < j2:
                Wt[j1 + j : j2].addr_(row[j:], error, alpha=-1)
        return
    groups = -(-(j2 - j1) // group)
    middle = j1 + group * (groups // 2)
    _eliminate(U, Wt, Et, Mt, choose, group, j1, middle)
    Wt[middle:j2].addmm_(U[j1:middle, middle:j2].T, Et[j1:middle], alpha=-1)
    _eliminate(U, Wt, Et, Mt, choose, group, middle, j2)
