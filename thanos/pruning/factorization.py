"""One factorisation of the Gram matrix serves a whole layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thanos.accelerator import is_accelerator

from .errors import PruningError

ESCALATIONS = 3  # times λ is multiplied by 10 before giving up

# Columns factorised at a time, and columns of U multiplied at a time to skip its zeros: more on an
# accelerator, where asking for a product takes longer than multiplying some zeros.
_PANEL = 128
_STRIP = 256
_STRIP_ON_ACCELERATOR = 1024


@dataclass(frozen=True)
class InverseFactor:
    """U with (G[i:, i:])⁻¹ = U[i:, i:]ᵀ U[i:, i:] for every i."""

    U: Tensor  # (b, b), upper triangular
    damping: float  # λ that is part of G

    def trailing_inverse(self, i1: int, i2: int) -> Tensor:
        """Rows i1:i2 of (G[i1:, i1:])⁻¹, shape (i2 − i1, b − i1)."""
        return self.U[i1:i2, i1:i2].T @ self.U[i1:i2, i1:]


def factorize(G: Tensor, damping: float, dtype: torch.dtype) -> InverseFactor:
    """Factorise G + λ·mean(diag G)·I for all trailing blocks at once; ⅔·b³ multiplications.

    G = V Vᵀ with V upper triangular, U = V⁻¹. Nothing as large as G is needed besides U.

    Args:
        G: (b, b) Gram matrix, not modified; zeros on the diagonal (dead inputs) count as ones.
        damping: λ to begin with; multiplied by 10 at most `ESCALATIONS` times.
        dtype: of the factor.

    Raises:
        PruningError: if no λ tried makes G positive definite.
    """
    diagonal = G.diagonal().to(dtype)
    diagonal = torch.where(diagonal == 0, 1, diagonal)

    def attempt(tried: float) -> Tensor | None:
        U = G.to(dtype, copy=True)
        U.diagonal().copy_(diagonal + tried * diagonal.mean())
        return U if _invert_upper_factor(U) else None

    return InverseFactor(*_escalate(attempt, damping))


def cholesky_damped(G: Tensor, damping: float, mean_diagonal: Tensor) -> tuple[Tensor, float]:
    """Lower Cholesky factor of G + λ·`mean_diagonal`·I and the λ that it took.

    Args:
        G: (k, k), a principal part of a Gram matrix; not modified.
        damping: λ to begin with, as in `factorize`.
        mean_diagonal: mean(diag G) of the whole matrix.

    Raises:
        PruningError: if no λ tried makes G positive definite.
    """

    def attempt(tried: float) -> Tensor | None:
        damped = G.clone()
        damped.diagonal().add_(tried * mean_diagonal)
        L, info = torch.linalg.cholesky_ex(damped)
        return L if int(info) == 0 and bool(L.diagonal().isfinite().all()) else None

    return _escalate(attempt, damping)


def _escalate(attempt: Callable[[float], Tensor | None], damping: float) -> tuple[Tensor, float]:
    if not damping >= 0:
        raise PruningError(f"damping {damping:g} must be at least 0")
    tried = [damping * 10**k for k in range(ESCALATIONS + 1)] if damping else [0.0]
    for value in tried:
        factor = attempt(value)
        if factor is not None:
            return factor, value
    values = ", ".join(f"{value:g}" for value in tried)
    raise PruningError(
        f"the Gram matrix is not positive definite with damping {values}; "
        "use more calibration windows, a larger damping or float64"
    )


def _invert_upper_factor(H: Tensor) -> bool:
    """Turn H (b, b) into U in place, from the last panel to the first; False if it has no factor.

    When the turn of columns i:j comes, those right of them hold V in the rows above j and U below.
    Library routines factorise and invert the panels' diagonal blocks; all else are large matrix
    products, several times faster here than one Cholesky and one triangular solve for the inverse.
    """
    b = len(H)
    failures = []
    strip = _STRIP_ON_ACCELERATOR if is_accelerator(H.device) else _STRIP
    for i in reversed(range(0, b, _PANEL)):
        j = min(b, i + _PANEL)
        # Columns i:j of V, above the diagonal block times V_ijᵀ, from G = V Vᵀ.
        H[:j, i:j].addmm_(H[:j, j:], H[i:j, j:].T, alpha=-1)
        flipped, info = torch.linalg.cholesky_ex(H[i:j, i:j].flip(0, 1))
        failures.append(info)
        identity = torch.eye(j - i, dtype=H.dtype, device=H.device)
        block = torch.linalg.solve_triangular(flipped, identity, upper=False).flip(0, 1)  # U_ii
        H[:i, i:j] = H[:i, i:j] @ block.T
        # Row i:j of U = V⁻¹ from U_ii V_i: U = (0 … I … 0).
        row = block @ H[i:j, j:]
        for k in range(j, b, strip):
            end = min(b, k + strip)
            H[i:j, k:end].addmm_(row[:, : end - j], H[j:end, k:end], beta=0, alpha=-1)
        H[i:j, i:j] = block
        H[j:, i:j] = 0
    return not bool(torch.stack(failures).any()) and bool(H.diagonal().isfinite().all())
