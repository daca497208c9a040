"""Thanos and SparseGPT as published: what the pruning times of this package are compared with.

They know no outlier rows, no memory budget and no rescue of a failing factorisation.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from thanos.pruning import Pattern, SemiStructured, Structured, Unstructured

# Rows whose systems are solved together: the paper's vertical segments.
_ROWS_AT_ONCE = 1024
_DAMPING = 0.01  # λ, the default of `prune_weight`

Update = Callable[[Tensor, Tensor, Tensor], None]


@torch.no_grad()
def pseudocode_thanos(W: Tensor, G: Tensor, pattern: Pattern, block_size: int) -> Tensor:
    """Thanos line by line as its pseudocode has it (arXiv 2504.05346); what the tests' oracle does.

    For every block the trailing Hessian is inverted explicitly, the whole residual is sorted, and
    row after row solves λ · A_qq = w_q by a call of `solve` and subtracts λ · A_q: .

    Args:
        W: (c, b) weight, float32 or float64; not modified.
        G: (b, b) Gram matrix of the inputs, in the precision of W.
        pattern: what to remove.
        block_size: B; for n:m a multiple of m.
    """
    return _thanos(W, G, pattern, block_size, torch.linalg.inv, _sorted, _row_by_row)


@torch.no_grad()
def batched_thanos(W: Tensor, G: Tensor, pattern: Pattern, block_size: int) -> Tensor:
    """The same algorithm with the fastest routine for each of its steps.

    For every block: an inverse from the Cholesky factor, a partial selection, and systems padded to
    the longest and solved many rows at a time (the paper's implementation section), then one
    product for all rows.
    """
    return _thanos(W, G, pattern, block_size, _inverse, _smallest, _rows_at_once)


def _thanos(
    W: Tensor,
    G: Tensor,
    pattern: Pattern,
    block_size: int,
    inverse: Callable[[Tensor], Tensor],
    smallest: Callable[[Tensor, int], Tensor],
    update: Update,
) -> Tensor:
    W, H = _prepare(W, G)
    norms = G.diagonal().sqrt()
    c, b = W.shape
    if isinstance(pattern, Structured):
        losses = (W * norms).square().sum(0)
        Q = losses.argsort(stable=True)[: _columns(pattern, 0, b, b)]
        A = inverse(H)
        W -= W[:, Q] @ torch.linalg.solve(A[Q][:, Q], A[Q])
        W[:, Q] = 0
        return W
    remaining = int(pattern.p * c * b + 1e-9) if isinstance(pattern, Unstructured) else 0
    for i1 in range(0, b, block_size):
        i2 = min(i1 + block_size, b)
        A = inverse(H[i1:, i1:])
        if isinstance(pattern, SemiStructured):
            mask = _smallest_per_group(W[:, i1:i2].abs() * norms[i1:i2], pattern)
        else:
            mask = smallest(W[:, i1:].abs() * norms[i1:], remaining)[:, : i2 - i1]
            remaining -= int(mask.sum())
        update(W[:, i1:], A, mask)
    return W


@torch.no_grad()
def plain_sparsegpt(W: Tensor, G: Tensor, pattern: Pattern, block_size: int) -> Tensor:
    """SparseGPT column by column (arXiv 2301.00774, algorithm 1); what is right of a block waits.

    The arguments are those of `pseudocode_thanos`.
    """
    W, H = _prepare(W, G)
    c, b = W.shape
    U = torch.linalg.cholesky(_inverse(H), upper=True)
    for i1 in range(0, b, block_size):
        i2 = min(i1 + block_size, b)
        block, errors = W[:, i1:i2], torch.zeros_like(W[:, i1:i2])
        pivots = U.diagonal()[i1:i2]
        mask = torch.zeros(c, i2 - i1, dtype=torch.bool, device=W.device)
        scores = (block / pivots).square()
        if isinstance(pattern, Structured):
            chosen = scores.sum(0).argsort(stable=True)[: _columns(pattern, i1, i2, b)]
            mask[:, chosen] = True
        elif isinstance(pattern, Unstructured):
            mask = _smallest(scores, int(pattern.p * c * (i2 - i1) + 1e-9))
        for j in range(i2 - i1):
            if isinstance(pattern, SemiStructured) and j % pattern.m == 0:
                group = slice(j, j + pattern.m)
                mask[:, group] = _smallest_per_group(
                    (block[:, group] / pivots[group]).square(), pattern
                )
            errors[:, j] = torch.where(mask[:, j], block[:, j], 0) / pivots[j]
            block[:, j:] -= torch.outer(errors[:, j], U[i1 + j, i1 + j : i2])
        block.masked_fill_(mask, 0)
        W[:, i2:] -= errors @ U[i1:i2, i2:]
    return W


def _prepare(W: Tensor, G: Tensor) -> tuple[Tensor, Tensor]:
    W, H = W.clone(), G.clone()
    dead = G.diagonal() == 0
    W[:, dead] = 0
    H.diagonal()[dead] = 1
    H.diagonal().add_(_DAMPING * H.diagonal().mean())
    return W, H


def _inverse(H: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(H))


def _columns(pattern: Structured, i1: int, i2: int, b: int) -> int:
    """How many of the columns i1:i2 go, so that ⌈p·b⌉ go in all."""
    s = -int(-(pattern.p * b - 1e-9) // 1)
    return s * i2 // b - s * i1 // b


def _sorted(scores: Tensor, k: int) -> Tensor:
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask.view(-1)[scores.flatten().sort(stable=True).indices[:k]] = True
    return mask


def _smallest(scores: Tensor, k: int) -> Tensor:
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask.view(-1)[scores.flatten().topk(k, largest=False, sorted=False).indices] = True
    return mask


def _smallest_per_group(scores: Tensor, pattern: SemiStructured) -> Tensor:
    groups = scores.unflatten(1, (-1, pattern.m))
    chosen = groups.topk(pattern.m - pattern.n, dim=2, largest=False, sorted=False).indices
    mask = torch.zeros_like(groups, dtype=torch.bool)
    return mask.scatter_(2, chosen, True).flatten(1)


def _row_by_row(W: Tensor, A: Tensor, mask: Tensor) -> None:
    """λ · A_qq = w_q for one row after the other."""
    for i in range(len(W)):
        q = mask[i].nonzero().squeeze(1)
        Lambda = torch.linalg.solve(A[q][:, q], W[i, q])  # A is symmetric
        W[i] -= Lambda @ A[q]
        W[i, q] = 0


def _rows_at_once(W: Tensor, A: Tensor, mask: Tensor) -> None:
    for rows, M in zip(W.split(_ROWS_AT_ONCE), mask.split(_ROWS_AT_ONCE), strict=True):
        _padded(rows, A, M)


def _padded(W: Tensor, A: Tensor, mask: Tensor) -> None:
    """λ · A_qq = w_q for every row, padded with the identity; then W −= λ · A_q: ."""
    width = mask.shape[1]
    count = mask.sum(1, keepdim=True)
    longest = int(count.max())
    if longest == 0:
        return
    q = mask.byte().argsort(dim=1, descending=True, stable=True)[:, :longest]  # (rows, longest)
    used = torch.arange(longest, device=W.device) < count
    systems = A[q[:, :, None], q[:, None, :]]  # (rows, longest, longest)
    identity = torch.eye(longest, dtype=W.dtype, device=W.device)
    systems = torch.where(used[:, :, None] & used[:, None, :], systems, identity)
    # Not LU: on several threads torch's batched one is wrong for large systems.
    factors = torch.linalg.cholesky(systems)
    solution = torch.cholesky_solve((W.gather(1, q) * used)[:, :, None], factors)[:, :, 0]
    Lambda = torch.zeros_like(W[:, :width]).scatter_(1, q, solution * used)
    W -= Lambda @ A[:width]
    W[:, :width].masked_fill_(mask, 0)
