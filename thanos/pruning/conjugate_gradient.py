"""Masked conjugate gradients: many small systems with one matrix, each on its own support.

Row i asks for x with support q_i (its mask) and [A]_qq x_q = r_q. All rows share one dense product
per iteration; nothing is gathered, padded or factorised. The joint update solves with blocks of the
trailing inverse, the refinement with the Gram matrix itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from thanos.accelerator import is_accelerator

# Iterations between looks at which rows have converged. On an accelerator every look waits for it,
# and so would putting rows aside that are done: the thin products cost it less.
_CHECK_EVERY = 1
_CHECK_EVERY_ON_ACCELERATOR = 8


@dataclass(frozen=True)
class Solution:
    """Result of `solve_masked`."""

    x: Tensor  # (c, w), zero off the mask
    converged: Tensor  # (c,) bool
    complete: bool  # all of them


def solve_masked(
    A: Tensor, rhs: Tensor, mask: Tensor, *, tolerance: float, max_iterations: int
) -> Solution:
    """Solve [A]_qq x_q = rhs_q for every row by Jacobi-preconditioned conjugate gradients.

    Args:
        A: (w, w) symmetric positive definite.
        rhs: (c, w); entries off the mask are ignored.
        mask: (c, w) bool, the support q of each row.
        tolerance: relative residual, in the preconditioned norm, at which a row is done.
        max_iterations: iterations after which a row is given up.
    """
    # With D = diag(A), solving D^-½ A D^-½ y = D^-½ r for y = D^½ x builds the preconditioner in.
    scaling = A.diagonal().rsqrt()
    A = A * scaling * scaling[:, None]
    support = mask.to(A.dtype)
    R = rhs * scaling * support
    P = R.clone()
    Y = torch.zeros_like(R)
    least = torch.finfo(A.dtype).tiny
    rr = _squared_norms(R, least)
    target = (rr * tolerance**2).clamp_min_(2 * least)
    flatness, floor = len(A) * torch.finfo(A.dtype).eps, R.new_full((), least)
    there = is_accelerator(A.device)
    check_every = _CHECK_EVERY_ON_ACCELERATOR if there else _CHECK_EVERY

    result = torch.zeros_like(R)
    converged = torch.zeros((len(R), 1), dtype=torch.bool, device=R.device)
    active = torch.arange(len(R), device=R.device)
    iteration = 0
    while True:
        done = rr <= target
        if (iteration + 1) % check_every == 0 or iteration == max_iterations:
            finished = int(done.sum())
            if iteration == max_iterations or finished == len(done):
                converged[active] = done
                result[active] = Y
                break
            if finished * 4 >= len(done) and not there:
                converged[active] = done
                keep = ~done.squeeze(1)
                result[active[~keep]] = Y[~keep]
                active, target, rr, done = active[keep], target[keep], rr[keep], done[keep]
                Y, R, P, support = Y[keep], R[keep], P[keep], support[keep]
        AP = (P @ A).mul_(support)
        curvature = (P * AP).sum(1, keepdim=True)
        # A row that is done stays as it is, so that it does not depend on which rows it is solved
        # with. Along a direction without curvature (a singular A, nothing but rounding left) no
        # step is meaningful: dividing by almost zero would throw the row far away.
        norms = torch.linalg.vector_norm(P, dim=1, keepdim=True)
        still = curvature <= torch.addcmul(floor, norms, norms, value=flatness)
        still.logical_or_(done)
        step = rr / curvature.masked_fill_(still, float("inf"))
        Y.addcmul_(P, step)
        R.addcmul_(AP, step, value=-1)
        rr, before = _squared_norms(R, least), rr
        P.mul_(rr / before).add_(R)
        iteration += 1
    return Solution(result.mul_(scaling), converged.squeeze(1), finished == len(done))


def _squared_norms(rows: Tensor, least: float) -> Tensor:
    """Of every row, (c, 1), and at least `least`, so that all can be divided by.

    A product of rows with themselves takes a temporary, their norm takes none.
    """
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True).square_().clamp_min_(least)
