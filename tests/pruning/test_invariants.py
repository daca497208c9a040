"""What must hold for every layer, whatever the formulas behind it."""

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import oracle
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from layers import SPARSITIES, Layer, block_sizes, layers, property_test, random_layer

from thanos.pruning import PruningResult, prune_weight

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")


def prune(layer: Layer, method: str, pattern: str, **options) -> PruningResult:
    return prune_weight(
        layer.W, layer.statistics(), method, pattern, dtype=torch.float64, **options
    )


@pytest.mark.parametrize("method", METHODS)
@property_test(25)
@given(layer=layers(), text=st.sampled_from(SPARSITIES), B=block_sizes())
def test_exact_number_of_zeros(method: str, layer: Layer, text: str, B: int) -> None:
    result = prune(layer, method, text, block_size=B)
    p, (c, b) = Fraction(text), layer.W.shape
    assert torch.equal(result.weight == 0, result.mask | (result.weight == 0))
    if method == "wanda":
        assert (result.mask.sum(1) == floor(p * b)).all()
    elif method == "sparsegpt":
        counts = [int(block.sum()) for block in result.mask.split(B, dim=1)]
        widths = [block.shape[1] for block in result.mask.split(B, dim=1)]
        assert counts == [floor(p * c * w) for w in widths]
    else:
        assert int(result.mask.sum()) == floor(p * c * b)
    if not (layer.G.diagonal() == 0).any():
        assert torch.equal(result.weight == 0, result.mask)
        assert result.sparsity == int(result.mask.sum()) / (c * b)


@pytest.mark.parametrize("method", METHODS)
@property_test(20)
@given(data=st.data(), n=st.integers(1, 6), extra=st.integers(1, 4), B=block_sizes())
def test_at_most_n_of_m(method: str, data: st.DataObject, n: int, extra: int, B: int) -> None:
    m = n + extra
    layer = data.draw(layers(m=m))
    result = prune(layer, method, f"{n}:{m}", block_size=B)
    groups = (result.weight != 0).view(len(layer.W), -1, m)
    assert (groups.sum(2) <= n).all()
    assert (result.mask.view(groups.shape).sum(2) == m - n).all()


@pytest.mark.parametrize("method", METHODS)
@property_test(20)
@given(layer=layers(least_rows=4), text=st.sampled_from(("0.1", "0.3", "0.5")), B=block_sizes())
def test_whole_columns_in_every_row_but_the_outliers(
    method: str, layer: Layer, text: str, B: int
) -> None:
    alpha, (c, b) = 0.2, layer.W.shape
    pruned_rows = c - ceil(c / 5)
    columns = ceil(Fraction(text) * c * b / pruned_rows)
    assume(columns <= b)
    result = prune(layer, method, f"structured:{text}", block_size=B, outlier_fraction=alpha)
    per_column = result.mask.sum(0)
    assert set(per_column.tolist()) <= {0, pruned_rows}
    assert int((per_column > 0).sum()) == columns
    dense = ~result.mask.any(1)
    assert torch.equal(result.weight[dense], layer.W[dense])


@pytest.mark.parametrize("pattern", ["0.3", "0.5", "0.9", "2:4", "1:4", "structured:0.4"])
@property_test(12)
@given(layer=layers(m=4, most=24), damping=st.sampled_from((0.01, 0.1)))
def test_one_block_is_the_optimum_of_every_row(pattern: str, layer: Layer, damping: float) -> None:
    result = prune(layer, "thanos", pattern, block_size=99, damping=damping)
    H = oracle.regularised(layer.G, damping)
    live = layer.G.diagonal() > 0
    for w, pruned, removed in zip(layer.W * live, result.weight, result.mask, strict=True):
        best = oracle.optimal_row(w, H, removed)
        assert (pruned - best).norm() <= 1e-8 * w.norm()


@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4", "structured:0.3"])
@property_test(20)
@given(layer=layers(m=4))
def test_joint_update_never_loses_to_no_update(pattern: str, layer: Layer) -> None:
    """In the damped objective, which it minimises; with one block for every layer."""
    result = prune(layer, "thanos", pattern, block_size=99)
    H = oracle.regularised(layer.G, 0.01)
    W = layer.W * (layer.G.diagonal() > 0)
    untouched = W.masked_fill(result.mask, 0)
    assert oracle.loss(W, result.weight, H) <= oracle.loss(W, untouched, H) * (1 + 1e-12)


@pytest.mark.parametrize("block_size", [1, 8, 32])
@pytest.mark.parametrize("pattern", ["0.5", "0.7", "2:4", "structured:0.3"])
def test_block_by_block_the_update_pays_off(pattern: str, block_size: int) -> None:
    for seed in range(10):
        layer = random_layer(c=32, b=64, tokens=256, seed=seed)
        result = prune(layer, "thanos", pattern, block_size=block_size)
        untouched = layer.W.masked_fill(result.mask, 0)
        assert oracle.loss(layer.W, result.weight, layer.G) < oracle.loss(
            layer.W, untouched, layer.G
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.3"])
@property_test(6)
@given(layer=layers(m=4, least_rows=4), B=block_sizes(), seed=st.integers(0, 99))
def test_permuted_rows_permute_the_result(
    method: str, pattern: str, layer: Layer, B: int, seed: int
) -> None:
    """But for ties (dead inputs), which go by index."""
    assume((layer.G.diagonal() > 0).all())
    order = torch.randperm(len(layer.W), generator=torch.Generator().manual_seed(seed))
    options = {"block_size": B, "outlier_fraction": 0.1}
    result = prune(layer, method, pattern, **options)
    permuted = prune(Layer(layer.W[order], layer.X), method, pattern, **options)
    assert torch.equal(permuted.mask, result.mask[order])
    assert (permuted.weight - result.weight[order]).norm() <= 1e-8 * result.weight.norm()


@pytest.mark.parametrize("method", METHODS)
@property_test(12)
@given(
    layer=layers(m=4, most=24, least_rows=4),
    pattern=st.sampled_from(("0.5", "0.7", "2:4", "structured:0.3")),
    B=block_sizes(30),
    alpha=st.sampled_from((0.0, 0.1)),
)
def test_refinement_never_raises_the_loss(
    method: str, layer: Layer, pattern: str, B: int, alpha: float
) -> None:
    options = {"block_size": B, "outlier_fraction": alpha}
    results = [
        prune(layer, method, pattern, refine_steps=steps, **options) for steps in (0, 1, 3, 10, 300)
    ]
    errors = [result.relative_error for result in results]
    for before, after in pairwise(errors):
        assert 0 <= after <= before + 1e-12
    for result in results:
        assert torch.equal(result.mask, results[0].mask)
        assert (result.weight[result.mask] == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.3"])
def test_refinement_ends_at_the_optimum_of_the_mask(method: str, pattern: str) -> None:
    layer = random_layer(c=10, b=24, tokens=60)
    result = prune(layer, method, pattern, block_size=8, refine_steps=100)
    for w, pruned, removed in zip(layer.W, result.weight, result.mask, strict=True):
        best = oracle.optimal_row(w, layer.G, removed)
        assert (pruned - best).norm() <= 1e-6 * w.norm()


@property_test(30)
@given(layer=layers(m=4), pattern=st.sampled_from(("0", "0.5", "0.99", "2:4", "structured:0.3")))
def test_relative_error_is_that_of_the_outputs(layer: Layer, pattern: str) -> None:
    """‖(W − Ŵ) X‖² / ‖W X‖², computed from X itself; undamped."""
    assume((layer.G.diagonal() > 0).any())
    result = prune(layer, "thanos", pattern, block_size=8)
    lost = ((layer.W - result.weight) @ layer.X.T).square().sum()
    total = (layer.W @ layer.X.T).square().sum()
    assert result.relative_error == pytest.approx(float(lost / total), rel=1e-8, abs=1e-12)
    assert result.relative_error >= 0


def test_outputs_of_a_wide_layer() -> None:
    """Relative error and outlier rows where G is multiplied in several blocks of columns."""
    layer = random_layer(c=6, b=1100, tokens=300)
    result = prune(layer, "thanos", "structured:0.2", block_size=64, outlier_fraction=0.3)
    lost = ((layer.W - result.weight) @ layer.X.T).square().sum()
    outputs = (layer.W @ layer.X.T).square().sum(1)
    assert result.relative_error == pytest.approx(float(lost / outputs.sum()), rel=1e-8)
    dense = ~result.mask.any(1)
    assert set(outputs.topk(2).indices.tolist()) == set(dense.nonzero().flatten().tolist())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.3"])
@pytest.mark.parametrize("budget", [1, 5000])
def test_the_memory_budget_changes_nothing(method: str, pattern: str, budget: int) -> None:
    layer = random_layer(c=17, b=40, tokens=100)
    options = {"block_size": 16, "refine_steps": 2, "outlier_fraction": 0.1}
    expected = prune(layer, method, pattern, **options)
    result = prune(layer, method, pattern, memory_budget=budget, **options)
    assert torch.equal(result.mask, expected.mask)
    assert (result.weight - expected.weight).norm() <= 1e-10 * expected.weight.norm()
