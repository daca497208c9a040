"""Corrected targets: the weights that give the dense model's outputs from the inputs there are."""

import oracle
import pytest
import torch
from layers import random_layer

from thanos.pruning import InputStatistics, PruningError, prune_weight

LAYER = random_layer(c=10, b=16, tokens=60)
OTHER = random_layer(c=10, b=16, tokens=60, seed=5)
DENSE = LAYER.X + 0.2 * OTHER.X  # inputs of the same tokens in the dense model


def corrected(beta: float, damping: float, **options) -> torch.Tensor:
    """The target that nothing is removed of."""
    return prune_weight(
        LAYER.W,
        LAYER.statistics(dense=DENSE),
        "thanos",
        "0",
        correction=beta,
        damping=damping,
        dtype=torch.float64,
        **options,
    ).weight


def test_a_full_correction_is_the_ridge_regression_on_the_dense_outputs() -> None:
    X, damping = LAYER.X, 0.05
    ridge = damping * LAYER.G.diagonal().mean()
    # Rows of W̃ minimise ‖X̄ w − X w̃‖² + ridge ‖w − w̃‖²: ordinary least squares with 16 more rows.
    identity = torch.eye(16, dtype=torch.float64) * ridge.sqrt()
    inputs = torch.cat([X, identity])
    outputs = torch.cat([DENSE @ LAYER.W.T, identity @ LAYER.W.T])
    expected = torch.linalg.lstsq(inputs, outputs).solution.T
    assert torch.allclose(corrected(1.0, damping), expected, rtol=1e-9, atol=1e-10)
    half = LAYER.W + 0.5 * (expected - LAYER.W)
    assert torch.allclose(corrected(0.5, damping), half, rtol=1e-9, atol=1e-10)


def test_without_a_correction_the_weights_are_those_of_before_bit_for_bit() -> None:
    for method in ("wanda", "sparsegpt", "thanos", "admm"):
        plain = prune_weight(LAYER.W, LAYER.statistics(), method, "2:4")
        with_cross = prune_weight(LAYER.W, LAYER.statistics(dense=DENSE), method, "2:4")
        assert torch.equal(plain.weight, with_cross.weight)


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.25"])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "thanos", "admm"])
def test_every_method_prunes_the_corrected_weight(method: str, pattern: str) -> None:
    """Outlier rows are corrected as well: they stay dense, not as they were."""
    statistics = LAYER.statistics(dense=DENSE)
    result = prune_weight(
        LAYER.W,
        statistics,
        method,
        pattern,
        correction=0.7,
        outlier_fraction=0.1,
        block_size=8,
        dtype=torch.float64,
    )
    target = corrected(0.7, 0.01)
    expected = oracle.prune(target, LAYER.G, method, pattern, B=8, alpha=0.1)
    assert torch.equal(result.mask, expected.mask)
    assert torch.allclose(result.weight, expected.weight, rtol=1e-8, atol=1e-10)
    error = oracle.loss(target, expected.weight, LAYER.G)
    total = oracle.loss(target, torch.zeros_like(target), LAYER.G)
    assert result.relative_error == pytest.approx(error / total)


def test_dead_inputs_are_left_alone() -> None:
    X = LAYER.X.clone()
    X[:, 3] = 0
    statistics = InputStatistics(16, cross=True, dtype=torch.float64)
    statistics.update(X, DENSE)
    target = prune_weight(
        LAYER.W, statistics, "wanda", "0", correction=1.0, dtype=torch.float64
    ).weight
    assert torch.allclose(target[:, 3], LAYER.W[:, 3])
    assert not torch.allclose(target[:, 4], LAYER.W[:, 4])


def test_a_layers_statistics_in_parts_are_those_of_the_whole() -> None:
    whole, parts = LAYER.statistics(dense=DENSE), InputStatistics(16, cross=True)
    for rows in (slice(0, 7), slice(7, 60)):
        parts.update(LAYER.X[rows].float().view(1, -1, 16), DENSE[rows].float().view(1, -1, 16))
    assert torch.allclose(parts.cross.double(), whole.cross, rtol=1e-4, atol=1e-4)


def test_refused_without_the_dense_inputs() -> None:
    with pytest.raises(PruningError, match="cross=True"):
        prune_weight(LAYER.W, LAYER.statistics(), "thanos", "0.5", correction=0.5)
    for beta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(PruningError, match="correction"):
            prune_weight(LAYER.W, LAYER.statistics(dense=DENSE), "thanos", correction=beta)
