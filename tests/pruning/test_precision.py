"""Working precisions, the precision of the result, and what is left alone."""

import math

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import Layer, assert_matches, layers, property_test, random_layer

from thanos.pruning import InputStatistics, PruningError, prune_weight, updates

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")
PATTERNS = ("0.5", "0.8", "2:4", "structured:0.3")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_result_has_the_dtype_of_the_weight(dtype: torch.dtype, method: str, pattern: str) -> None:
    """Computed in float32; what is removed is an exact zero in half precision as well."""
    layer = random_layer(c=16, b=64, tokens=200)
    weight = layer.W.to(dtype)
    before = weight.clone()
    result = prune_weight(
        weight, layer.statistics(dtype=torch.float32), method, pattern, block_size=16
    )
    assert result.weight.dtype == dtype
    assert result.weight.data_ptr() != weight.data_ptr()
    assert torch.equal(weight, before)
    assert (result.weight[result.mask] == 0).all()
    assert torch.equal(result.weight == 0, result.mask)
    expected = oracle.prune(weight, layer.G, method, pattern, B=16)
    assert int(result.mask.sum()) == int(expected.mask.sum())
    loss = oracle.loss(weight, result.weight, layer.G)
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    assert loss == pytest.approx(oracle.loss(weight, expected.weight, layer.G), rel=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_statistics_and_weight_are_not_changed(method: str) -> None:
    layer = random_layer(c=6, b=12, tokens=30)
    layer.X[:, 5] = 0  # dead: the preparation works on copies
    statistics, weight = layer.statistics(), layer.W.clone()
    gram = statistics.gram.clone()
    for pattern in PATTERNS:
        prune_weight(weight, statistics, method, pattern, dtype=torch.float64, refine_steps=1)
        assert torch.equal(statistics.gram, gram)
        assert torch.equal(weight, layer.W)


def test_a_parameter_that_requires_gradients_is_pruned_without_them() -> None:
    layer = random_layer(c=4, b=8, tokens=20)
    weight = torch.nn.Parameter(layer.W.float())
    result = prune_weight(weight, layer.statistics(dtype=torch.float32), "thanos", "0.5")
    assert not result.weight.requires_grad


def test_a_transposed_weight_is_a_weight() -> None:
    """Conv1D layers are pruned through a transposed view."""
    layer = random_layer(c=6, b=12, tokens=30)
    view = layer.W.T.contiguous().T
    for pattern in PATTERNS[1:]:
        result = prune_weight(view, layer.statistics(), "thanos", pattern, dtype=torch.float64)
        expected = oracle.prune(layer.W, layer.G, "thanos", pattern)
        assert torch.equal(result.mask, expected.mask)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_methods_without_update_need_no_gram_matrix(method: str, pattern: str) -> None:
    layer = random_layer(c=8, b=12, tokens=30)
    options = {"outlier_fraction": 0.1, "outlier_score": "separable"}
    result = prune_weight(layer.W, layer.statistics(gram=False), method, pattern, **options)
    expected = prune_weight(layer.W, layer.statistics(), method, pattern, **options)
    assert torch.equal(result.weight, expected.weight)
    assert result.damping is None


@pytest.mark.parametrize("score", ["exact", "separable"])
def test_every_method_keeps_the_same_rows(score: str) -> None:
    layer = random_layer(c=40, b=24, tokens=60)
    kept = []
    for method in METHODS:
        options = {"outlier_fraction": 0.2, "outlier_score": score}
        result = prune_weight(layer.W, layer.statistics(), method, "2:4", **options)
        kept.append((~result.mask.any(dim=1)).tolist())
    assert sum(kept[0]) == 8
    assert all(rows == kept[0] for rows in kept)


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_the_exact_score_of_rows_needs_the_gram_matrix(method: str) -> None:
    layer = random_layer(c=8, b=12, tokens=30)
    with pytest.raises(PruningError, match="accumulate them with gram=True"):
        prune_weight(layer.W, layer.statistics(gram=False), method, "0.5", outlier_fraction=0.1)


def test_magnitude_needs_no_statistics() -> None:
    layer = random_layer(c=8, b=12, tokens=30)
    result = prune_weight(layer.W, None, "magnitude", "0.5")
    assert result.sparsity == 0.5


@pytest.mark.parametrize("damping", [1e-6, 1e-4, 1.0])
@pytest.mark.parametrize("pattern", ["0.6", "2:4", "structured:0.3"])
@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_singular_gram_matrix_in_float32(method: str, pattern: str, damping: float) -> None:
    """A handful of tokens; a small damping is raised if it must be, the result is always sound."""
    layer = random_layer(c=24, b=96, tokens=8)
    statistics = layer.statistics(dtype=torch.float32)
    result = prune_weight(
        layer.W.float(), statistics, method, pattern, damping=damping, block_size=32
    )
    assert result.damping in [pytest.approx(damping * 10**k) for k in range(4)]
    assert (result.weight[result.mask] == 0).all()
    assert result.weight.isfinite().all()
    none = prune_weight(layer.W.float(), statistics, "wanda", pattern)
    assert result.relative_error < none.relative_error


@property_test(120)
@given(
    layer=layers(m=4, most=32, least_rows=2),
    tokens=st.sampled_from((1, 2, 1000)),
    method=st.sampled_from(METHODS),
    pattern=st.sampled_from(PATTERNS),
    B=st.sampled_from((1, 4, 13, 99)),
    damping=st.sampled_from((0.0, 1e-12, 1e-6, 0.01)),
    refine_steps=st.sampled_from((0, 3)),
    dtype=st.sampled_from((torch.float16, torch.bfloat16, torch.float32)),
    inputs=st.sampled_from((1e-20, 1e-3, 1.0, 1e6)),
)
def test_a_sound_result_or_a_clear_error(
    layer: Layer,
    tokens: int,
    method: str,
    pattern: str,
    B: int,
    damping: float,
    refine_steps: int,
    dtype: torch.dtype,
    inputs: float,
) -> None:
    """One token, copied and dead inputs, no damping, tiny and huge inputs, half precision."""
    statistics = InputStatistics(layer.X.shape[1])
    statistics.update(inputs * layer.X[:tokens])
    weight = layer.W.to(dtype)
    options = {"block_size": B, "damping": damping, "refine_steps": refine_steps}
    try:
        result = prune_weight(weight, statistics, method, pattern, **options)
    except PruningError as error:
        if "damping" not in str(error):
            raise
        return
    assert result.weight.dtype == dtype
    assert result.weight.isfinite().all()
    assert (result.weight[result.mask] == 0).all()
    assert math.isfinite(result.relative_error)


def test_rows_that_do_not_converge_are_solved_directly_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No iteration reaches a residual of zero."""
    layer = random_layer(c=10, b=24, tokens=60)
    expected = oracle.prune(layer.W, layer.G, "thanos", "0.5", B=24)
    rows = int(expected.mask.any(1).sum())
    for tolerance, solved_directly in ((1e-13, 0), (0.0, rows)):
        monkeypatch.setitem(updates._TOLERANCE, torch.float64, tolerance)
        result = prune_weight(
            layer.W, layer.statistics(), "thanos", "0.5", block_size=24, dtype=torch.float64
        )
        assert result.details["rows_solved_directly"] == solved_directly
        assert_matches(result, expected)


def test_the_relative_error_can_be_left_out() -> None:
    layer = random_layer(c=6, b=12, tokens=30)
    measured = prune_weight(layer.W, layer.statistics(), "thanos", "0.5")
    result = prune_weight(layer.W, layer.statistics(), "thanos", "0.5", measure_error=False)
    assert measured.relative_error > 0
    assert result.relative_error is None
    assert torch.equal(result.weight, measured.weight)


def test_accumulation_in_float64() -> None:
    statistics = InputStatistics(2, dtype=torch.float64)
    statistics.update(torch.tensor([[1e8, 1.0]]))
    statistics.update(torch.tensor([[1.0, 1.0]]))
    assert statistics.gram.tolist() == [[1e16 + 1, 1e8 + 1], [1e8 + 1, 2]]
