"""What calibration tells about a layer's inputs."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from thanos.accelerator import is_accelerator

from .errors import PruningError
from .factorization import InverseFactor, factorize
from .precision import exact_matmul, widens_products

# Inputs are converted to the accumulation dtype in slices of this many tokens.
_TOKENS_PER_SLICE = 16384
# Half of a Gram matrix is computed in squares; up to this width a whole one is as fast.
_SMALLEST, _SMALLEST_ON_ACCELERATOR = 256, 1024
_ALIGNED = 64  # where squares begin and end, for the kernels' sake

Shared = TypeVar("Shared")


class InputStatistics:
    """Accumulates the Gram matrix G = X Xᵀ of a layer's inputs, or only its diagonal.

    G is all the calibration data any method needs (paper, section 3: the Hessian is 2G).

    Args:
        in_features: b, the layer's number of inputs.
        gram: keep the whole matrix (b, b); otherwise only the squared column norms (b,).
        cross: keep C = (X̄ − X) Xᵀ as well, with X̄ the inputs of the same tokens in the dense
            model; see `correction`.
        dtype: accumulation dtype, float32 or float64.
        device: where the statistics live.
    """

    def __init__(
        self,
        in_features: int,
        *,
        gram: bool = True,
        cross: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.in_features = in_features
        self.dtype = dtype
        self.tokens = 0
        shape = (in_features, in_features) if gram else (in_features,)
        self._sums = torch.zeros(shape, dtype=dtype, device=device)
        self._mirrored = True  # whether what is right of the diagonal is up to date
        self._cross = torch.zeros_like(self._sums) if cross else None
        self._shared: dict[str, tuple[Any, Any]] = {}

    @property
    def has_gram(self) -> bool:
        """Whether the whole Gram matrix is accumulated."""
        return self._sums.dim() == 2

    @property
    def gram(self) -> Tensor:
        """G, (b, b).

        Raises:
            PruningError: if only the diagonal was accumulated.
        """
        if not self.has_gram:
            raise PruningError(
                "the Gram matrix is needed, but the statistics hold only its diagonal; "
                "accumulate them with gram=True"
            )
        if not self._mirrored:
            for rows, columns in self._squares():
                if rows != columns:
                    self._sums[columns, rows] = self._sums[rows, columns].T
            self._mirrored = True
        return self._sums

    @property
    def cross(self) -> Tensor:
        """C = (X̄ − X) Xᵀ, (b, b).

        Raises:
            PruningError: if it was not accumulated.
        """
        if self._cross is None:
            raise PruningError(
                "the correction needs the dense model's inputs; accumulate them with cross=True"
            )
        return self._cross

    @property
    def squared_norms(self) -> Tensor:
        """‖X_j‖² = G_jj, (b,)."""
        return self._sums.diagonal() if self.has_gram else self._sums

    @property
    def dead(self) -> Tensor:
        """Inputs that were always zero, (b,) bool."""
        return self.squared_norms == 0

    def regular_gram(self, dtype: torch.dtype) -> Tensor:
        """A copy of G with G_jj = 1 for dead inputs, (b, b)."""
        G = self.gram.to(dtype, copy=True)
        G.diagonal()[self.dead] = 1
        return G

    def reordered(self, order: Tensor) -> Self:
        """The same inputs' statistics, without C, in another order, (b,): which comes where."""
        made = copy.copy(self)
        made._sums = self.gram[order[:, None], order] if self.has_gram else self._sums[order]
        made._cross, made._shared = None, {}
        return made

    def inverse_factor(self, damping: float, dtype: torch.dtype) -> InverseFactor:
        """The factor of the damped Gram matrix; layers that share their inputs share it.

        Raises:
            PruningError: if no damping tried makes G positive definite.
        """
        key = (damping, dtype)
        return self.shared("factor", key, lambda: factorize(self.gram, damping, dtype))

    def shared(self, kind: str, key: Any, make: Callable[[], Shared]) -> Shared:
        """What `make` gives, made once for all layers that ask for it with the same key.

        Args:
            kind: of thing; one of each is kept.
            key: what it depends on besides these statistics.
            make: makes it.
        """
        if kind not in self._shared or self._shared[kind][0] != key:
            self._shared.pop(kind, None)
            self._shared[kind] = (key, make())
        made: Shared = self._shared[kind][1]
        return made

    @torch.no_grad()
    def update(self, x: Tensor, dense: Tensor | None = None) -> None:
        """Add inputs x of shape (..., b); every leading index is one token.

        Args:
            x: what the layer gets.
            dense: what it gets for the same tokens in the dense model, if C is accumulated.

        Raises:
            PruningError: if the last dimension is not b.
        """
        if x.shape[-1] != self.in_features:
            raise PruningError(f"inputs have {x.shape[-1]} features, expected {self.in_features}")
        self._shared.clear()
        tokens = x.reshape(-1, self.in_features)
        for start in range(0, len(tokens), _TOKENS_PER_SLICE):
            part = slice(start, start + _TOKENS_PER_SLICE)
            X = tokens[part].to(self._sums.device)  # (T, b)
            if self.has_gram:
                self._add_products(X)
            else:
                self._sums += X.to(self.dtype).square().sum(0)
            if self._cross is not None:
                assert dense is not None
                X = X.to(self.dtype)
                moved = dense.reshape(-1, self.in_features)[part].to(X) - X
                with exact_matmul():
                    self._cross.addmm_(moved.T, X)
        self.tokens += tokens.shape[0]

    def _add_products(self, X: Tensor) -> None:
        """Add Xᵀ X on and below the diagonal; `gram` fills in the other half."""
        widened = self.dtype == torch.float32 and widens_products(X.device.type, X.dtype)
        if not widened:
            X = X.to(self.dtype)
        self._mirrored = False
        with exact_matmul():
            for rows, columns in self._squares():
                left, right, sums = X[:, rows].T, X[:, columns], self._sums[rows, columns]
                if widened:
                    sums += torch.mm(left, right, out_dtype=self.dtype)
                else:
                    sums.addmm_(left, right)

    def _squares(self) -> Iterator[tuple[slice, slice]]:
        there = is_accelerator(self._sums.device)
        return _squares(0, self.in_features, _SMALLEST_ON_ACCELERATOR if there else _SMALLEST)


def _squares(start: int, end: int, smallest: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the squares that cover a symmetric matrix on and below the diagonal."""
    if end - start <= smallest:
        yield slice(start, end), slice(start, end)
        return
    middle = start + -(-(end - start) // (2 * _ALIGNED)) * _ALIGNED
    yield slice(middle, end), slice(start, middle)
    yield from _squares(start, middle, smallest)
    yield from _squares(middle, end, smallest)
