"""Random layers for property tests, and the comparison of a result with the oracle's."""

from dataclasses import dataclass

import torch
from hypothesis import settings
from hypothesis import strategies as st
from oracle import Pruned
from torch import Tensor

from thanos.pruning import InputStatistics, PruningResult

SPARSITIES = ("0", "0.05", "0.1", "0.29", "0.3", "0.5", "0.57", "0.7", "0.9", "0.99")


def property_test(examples: int) -> settings:
    """Settings of a property test: the same examples in every run."""
    return settings(derandomize=True, database=None, deadline=None, max_examples=examples)


@dataclass(frozen=True)
class Layer:
    """A weight W (c, b) and calibration tokens X (T, b), both float64."""

    W: Tensor
    X: Tensor

    @property
    def G(self) -> Tensor:  # noqa: N802
        """X Xᵀ in the paper's orientation, (b, b)."""
        return self.X.T @ self.X

    def statistics(
        self, gram: bool = True, dtype: torch.dtype = torch.float64, dense: Tensor | None = None
    ) -> InputStatistics:
        """What the package accumulates from X, and from the dense model's inputs if given."""
        statistics = InputStatistics(
            self.X.shape[1], gram=gram, cross=dense is not None, dtype=dtype
        )
        statistics.update(self.X.to(dtype), dense)
        return statistics


def random_layer(c: int, b: int, tokens: int, seed: int = 0) -> Layer:
    """A layer without ties: correlated inputs whose columns differ in scale."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = torch.eye(b, dtype=torch.float64) + 0.5 * normal(b, b) / b**0.5
    return Layer(normal(c, b), normal(tokens, b) @ mixing * (0.5 * normal(b)).exp())


@st.composite
def layers(draw: st.DrawFn, m: int = 1, most: int = 40, least_rows: int = 1) -> Layer:
    """Layers of up to `most` rows and columns, b a multiple of m.

    Among them: few tokens (singular G), dead inputs, inputs that are copies of another.
    """
    c = draw(st.integers(least_rows, most), label="c")
    b = m * draw(st.integers(1, most // m), label="b / m")
    tokens = draw(st.integers(1, 2 * b), label="tokens")
    layer = random_layer(c, b, tokens, draw(st.integers(0, 999), label="seed"))
    column = st.integers(0, b - 1)
    for source, copy in draw(st.lists(st.tuples(column, column), max_size=3), label="copies"):
        layer.X[:, copy] = layer.X[:, source]
    layer.X[:, draw(st.lists(column, max_size=b // 2), label="dead")] = 0
    return layer


def block_sizes(most: int = 60) -> st.SearchStrategy[int]:
    """From one column to more than a layer has."""
    return st.integers(1, most)


def assert_matches(result: PruningResult, expected: Pruned) -> None:
    """The same mask, the same weights to 1e-8, exact zeros where a weight was removed."""
    assert torch.equal(result.mask, expected.mask)
    difference = (result.weight - expected.weight).norm()
    assert difference <= 1e-8 * expected.weight.norm()
    assert (result.weight[result.mask] == 0).all()
