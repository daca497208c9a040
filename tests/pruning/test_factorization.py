"""The factor that gives the inverse of every trailing block of the Gram matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import Layer, layers, property_test, random_layer
from oracle import regularised

from thanos.pruning import factorization
from thanos.pruning.factorization import factorize


@property_test(60)
@given(
    layer=layers(most=24),
    panel=st.integers(1, 30),
    strip=st.integers(1, 30),
    damping=st.sampled_from((1e-3, 0.01, 1.0)),
)
def test_inverse_of_every_trailing_block(
    layer: Layer, panel: int, strip: int, damping: float
) -> None:
    """However the columns are split into panels, the last ragged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factorization, "_PANEL", panel)
        patch.setattr(factorization, "_STRIP", strip)
        factor = factorize(layer.G, damping, torch.float64)
    H = regularised(layer.G, damping)
    assert torch.equal(factor.U, factor.U.triu())
    for i in range(len(H)):
        trailing = factor.U[i:, i:]
        # H⁻¹ itself is only known to its condition number, at most b / damping here.
        residual = H[i:, i:] @ (trailing.T @ trailing) - torch.eye(len(H) - i, dtype=H.dtype)
        assert residual.abs().max() <= 1e-9


def test_several_default_panels_in_float32() -> None:
    """As close to float64 as the library's own routines are."""
    G = random_layer(c=1, b=700, tokens=1400).G
    expected = factorize(G, 0.01, torch.float64).U
    factor = factorize(G.float(), 0.01, torch.float32)
    assert factor.U.dtype == torch.float32
    H = regularised(G, 0.01).float()
    L = torch.linalg.cholesky(H.flip(0, 1))
    library = torch.linalg.solve_triangular(L, torch.eye(700), upper=False).flip(0, 1)
    distance = (factor.U - expected).norm() / expected.norm()
    assert distance <= 2 * (library - expected).norm() / expected.norm()


def test_the_gram_matrix_is_left_alone() -> None:
    G = random_layer(c=1, b=300, tokens=400).G
    before = G.clone()
    factorize(G, 0.01, torch.float64)
    assert torch.equal(G, before)


@pytest.mark.parametrize("bad", [0, 150, 299])
def test_a_matrix_without_factor_is_seen_in_any_panel(bad: int) -> None:
    """One negative direction, taken away by the third λ."""
    G = torch.eye(300, dtype=torch.float64)
    G[bad, bad] = -0.5
    assert factorize(G, 0.01, torch.float64).damping == 1.0
