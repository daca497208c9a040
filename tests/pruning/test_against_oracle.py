"""Every method and pattern gives what the paper's pseudocode gives: same mask, same weights."""

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import (
    SPARSITIES,
    Layer,
    assert_matches,
    block_sizes,
    layers,
    property_test,
    random_layer,
)

from thanos.pruning import prune_weight, selection

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")
GROUPS = ("1:2", "1:4", "2:4", "3:5", "4:8")
OUTLIERS = st.sampled_from((0.0, 0.0, 0.05, 0.1, 0.3))
DAMPING = st.sampled_from((0.01, 0.01, 0.1, 1.0, 1e-3))


def check(layer: Layer, method: str, pattern: str, B: int, alpha: float = 0.0, **options) -> None:
    expected = oracle.prune(layer.W, layer.G, method, pattern, B=B, alpha=alpha, **options)
    result = prune_weight(
        layer.W,
        layer.statistics(),
        method,
        pattern,
        block_size=B,
        outlier_fraction=alpha,
        dtype=torch.float64,
        **options,
    )
    assert_matches(result, expected)


@pytest.mark.parametrize("method", METHODS)
@property_test(100)
@given(layer=layers(), p=st.sampled_from(SPARSITIES), B=block_sizes(), damping=DAMPING)
def test_unstructured(method: str, layer: Layer, p: str, B: int, damping: float) -> None:
    check(layer, method, p, B, damping=damping)


@pytest.mark.parametrize("pattern", GROUPS)
@pytest.mark.parametrize("method", METHODS)
@property_test(25)
@given(data=st.data(), B=block_sizes(), alpha=OUTLIERS)
def test_semi_structured(
    method: str, pattern: str, data: st.DataObject, B: int, alpha: float
) -> None:
    layer = data.draw(layers(m=int(pattern.split(":")[1]), least_rows=2))
    check(layer, method, pattern, B, alpha)


@pytest.mark.parametrize("method", METHODS)
@property_test(100)
@given(
    layer=layers(least_rows=4),
    p=st.sampled_from(("0", "0.05", "0.1", "0.29", "0.3", "0.5", "0.57")),
    B=block_sizes(),
    alpha=OUTLIERS,
)
def test_structured(method: str, layer: Layer, p: str, B: int, alpha: float) -> None:
    check(layer, method, f"structured:{p}", B, alpha)


@pytest.mark.parametrize("method", METHODS)
@property_test(60)
@given(
    layer=layers(least_rows=4),
    p=st.sampled_from(("0", "0.1", "0.29", "0.5")),
    B=block_sizes(),
    alpha=OUTLIERS,
    outlier_score=st.sampled_from(("exact", "separable")),
)
def test_unstructured_beside_outlier_rows(
    method: str, layer: Layer, p: str, B: int, alpha: float, outlier_score: str
) -> None:
    check(layer, method, p, B, alpha, outlier_score=outlier_score)


@pytest.mark.parametrize("scope", ["layer", "row", "block", "residual"])
@pytest.mark.parametrize("metric", ["magnitude", "wanda", "sparsegpt"])
@property_test(20)
@given(
    layer=layers(most=24),
    p=st.sampled_from(SPARSITIES),
    B=block_sizes(36),
    update=st.sampled_from(("none", "sequential", "joint")),
)
def test_every_metric_scope_and_update(
    metric: str, scope: str, layer: Layer, p: str, B: int, update: str
) -> None:
    if scope == "residual" and update == "none":
        update = "joint"  # without an update the residual is the layer; refused elsewhere
    check(layer, "thanos", p, B, metric=metric, scope=scope, update=update)


@pytest.mark.parametrize("metric", ["magnitude", "wanda", "sparsegpt"])
@property_test(20)
@given(
    layer=layers(m=4, most=24),
    B=block_sizes(36),
    update=st.sampled_from(("none", "sequential", "joint")),
)
def test_every_metric_and_update_in_groups(metric: str, layer: Layer, B: int, update: str) -> None:
    check(layer, "thanos", "2:4", B, metric=metric, update=update)


@pytest.mark.parametrize("method", METHODS)
@property_test(60)
@given(data=st.data(), p=st.sampled_from(SPARSITIES))
def test_equal_scores_go_in_order_of_index(method: str, data: st.DataObject, p: str) -> None:
    """Small integers tie everywhere; uncorrelated inputs leave them as they are."""
    c, b = data.draw(st.integers(1, 12)), 4 * data.draw(st.integers(1, 5))
    weights = st.lists(st.integers(-3, 3), min_size=c * b, max_size=c * b)
    W = torch.tensor(data.draw(weights), dtype=torch.float64).view(c, b)
    layer = Layer(W, 2 * torch.eye(b, dtype=torch.float64))
    for pattern in (p, "2:4", f"structured:{p}"):
        check(layer, method, pattern, B=b, damping=0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pattern", ["0.5", "0.9", "2:4", "structured:0.3"])
def test_larger_layers_with_default_blocks(
    method: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several default blocks of 128 columns, the last one ragged; n:m has blocks of 512.

    The threshold is looked for as in layers of a real size.
    """
    monkeypatch.setattr(selection, "_SAMPLE", 128)
    layer = random_layer(c=12, b=280, tokens=500)
    B = 512 if pattern == "2:4" else 128
    expected = oracle.prune(layer.W, layer.G, method, pattern, B=B)
    result = prune_weight(
        layer.W, layer.statistics(), method, pattern, block_size=None, dtype=torch.float64
    )
    assert_matches(result, expected)
