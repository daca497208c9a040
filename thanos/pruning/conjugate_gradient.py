"""Masked conjugate gradients: many small systems with one matrix, each on its own support.

Row i asks for x with support q_i (its mask) and [A]_qq x_q = r_q. All rows share one dense product
per iteration; nothing is gathered, padded or factorised. The joint update solves with blocks of the
trailing inverse, the refinement with the Gram matrix itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Rows are checked, and converged ones put aside, every this many iterations.
_CHECK_EVERY = 8


@dataclass(frozen=True)
class Solution:
    """Result of `solve_masked`."""

    x: Tensor  # (c, w), zero off the mask
    converged: Tensor  # (c,) bool
    iterations: int


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
    rr = _row_dots(R, R)
    target = rr * tolerance**2
    tiny = torch.finfo(A.dtype).tiny
    flatness = len(A) * torch.finfo(A.dtype).eps

    result = torch.zeros_like(R)
    converged = torch.zeros(len(R), dtype=torch.bool, device=R.device)
    active = torch.arange(len(R), device=R.device)
    iteration = 0
    while True:
        if iteration % _CHECK_EVERY == 0 or iteration == max_iterations:
            done = rr <= target
            converged[active] = done
            if iteration == max_iterations or bool(done.all()):
                result[active] = Y
                break
            if int(done.sum()) * 4 >= len(done):
                result[active[done]] = Y[done]
                keep = ~done
                active, target, rr = active[keep], target[keep], rr[keep]
                Y, R, P, support = Y[keep], R[keep], P[keep], support[keep]
        AP = (P @ A).mul_(support)
        curvature = _row_dots(P, AP)
        # Along a direction without curvature (a singular A, nothing but rounding left) no step is
        # meaningful: dividing by almost zero would throw the row far away.
        flat = curvature <= flatness * _row_dots(P, P)
        step = torch.where(flat, 0, rr / curvature.clamp_min(tiny))
        Y.addcmul_(P, step[:, None])
        R.addcmul_(AP, step[:, None], value=-1)
        rr_next = _row_dots(R, R)
        P.mul_((rr_next / rr.clamp_min(tiny))[:, None]).add_(R)
        rr = rr_next
        iteration += 1
    return Solution(result.mul_(scaling), converged, iteration)


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)
