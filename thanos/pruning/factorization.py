"""One factorisation of the Gram matrix serves a whole layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import PruningError

ESCALATIONS = 3  # times λ is multiplied by 10 before giving up


@dataclass(frozen=True)
class InverseFactor:
    """U with (G[i:, i:])⁻¹ = U[i:, i:]ᵀ U[i:, i:] for every i."""

    U: Tensor  # (b, b), upper triangular
    damping: float  # λ that is part of G

    def trailing_inverse(self, i1: int, i2: int) -> Tensor:
        """Rows i1:i2 of (G[i1:, i1:])⁻¹, shape (i2 − i1, b − i1)."""
        return self.U[i1:i2, i1:i2].T @ self.U[i1:i2, i1:]


def cholesky_damped(
    G: Tensor, damping: float, mean_diagonal: Tensor | None = None
) -> tuple[Tensor, float]:
    """Lower Cholesky factor of G + λ·mean(diag G)·I and the λ that it took.

    λ starts at `damping` and is multiplied by 10 at most `ESCALATIONS` times. `mean_diagonal`
    stands in for mean(diag G) where G is a part of a larger matrix.

    Raises:
        PruningError: if no λ tried makes G positive definite.
    """
    if damping < 0:
        raise PruningError(f"damping {damping:g} is negative; it must be at least 0")
    mean = G.diagonal().mean() if mean_diagonal is None else mean_diagonal
    tried = [damping * 10**k for k in range(ESCALATIONS + 1)] if damping else [0.0]
    for attempt in tried:
        damped = G.clone()
        damped.diagonal().add_(attempt * mean)
        L, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0 and bool(L.diagonal().isfinite().all()):
            return L, attempt
    values = ", ".join(f"{attempt:g}" for attempt in tried)
    raise PruningError(
        f"the Gram matrix is not positive definite with damping {values}; "
        "use more calibration windows, a larger damping or float64"
    )


def factorize(G: Tensor, damping: float) -> InverseFactor:
    """Factorise G + λ·mean(diag G)·I for all trailing blocks at once; O(b³).

    With G = V Vᵀ, V upper triangular (flip, Cholesky, flip), U = V⁻¹.

    Raises:
        PruningError: if no λ tried makes G positive definite.
    """
    L, used = cholesky_damped(G.flip(0, 1), damping)
    identity = torch.eye(len(L), dtype=L.dtype, device=L.device)
    inverse = torch.linalg.solve_triangular(L, identity, upper=False, left=True)
    return InverseFactor(inverse.flip(0, 1), used)
