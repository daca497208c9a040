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
    rr = _squared_norms(R)
    target = rr * tolerance**2
    tiny = torch.finfo(A.dtype).tiny
    flatness = len(A) * torch.finfo(A.dtype).eps
    there = is_accelerator(A.device)
    check_every = _CHECK_EVERY_ON_ACCELERATOR if there else _CHECK_EVERY

    result = torch.zeros_like(R)
    converged = torch.zeros(len(R), dtype=torch.bool, device=R.device)
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
                result[active[done]] = Y[done]
                keep = ~done
                active, target, rr, done = active[keep], target[keep], rr[keep], done[keep]
                Y, R, P, support = Y[keep], R[keep], P[keep], support[keep]
        AP = (P @ A).mul_(support)
        curvature = torch.linalg.vecdot(P, AP)
        # A row that is done stays as it is, so that it does not depend on which rows it is solved
        # with. Along a direction without curvature (a singular A, nothing but rounding left) no
        # step is meaningful: dividing by almost zero would throw the row far away.
        still = done | (curvature <= flatness * _squared_norms(P))
        step = torch.where(still, 0, rr / curvature.clamp_min(tiny))
        Y.addcmul_(P, step[:, None])
        R.addcmul_(AP, step[:, None], value=-1)
        rr_next = _squared_norms(R)
        P.mul_((rr_next / rr.clamp_min(tiny))[:, None]).add_(R)
        rr = rr_next
        iteration += 1
    return Solution(result.mul_(scaling), converged, finished == len(done))


def _squared_norms(rows: Tensor) -> Tensor:
    """Of every row; in one pass, where a product of rows with themselves takes a temporary."""
    return torch.linalg.vector_norm(rows, dim=1).square_()
