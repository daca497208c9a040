"""Impossible requests and broken inputs are one clear error, never a silent fallback."""

import math

import pytest
import torch
from layers import random_layer

from thanos.pruning import InputStatistics, PruningError, parse_pattern, prune_weight

LAYER = random_layer(c=6, b=12, tokens=40)


def prune(method: str = "thanos", pattern: str = "0.5", **options) -> None:
    prune_weight(LAYER.W, LAYER.statistics(), method, pattern, dtype=torch.float64, **options)


@pytest.mark.parametrize("pattern", ["5:4", "4:4", "0:4", "2:", ":4", "2:4:8", "-1:4", "2.0:4"])
def test_bad_groups(pattern: str) -> None:
    with pytest.raises(PruningError, match=pattern):
        prune(pattern=pattern)


@pytest.mark.parametrize("pattern", ["1", "1.0", "-0.1", "1.5", "nan", "inf", "50%", "", "half"])
def test_bad_sparsity(pattern: str) -> None:
    for text in (pattern, f"structured:{pattern}", f"unstructured:{pattern}"):
        with pytest.raises(PruningError, match="sparsity"):
            parse_pattern(text)
        with pytest.raises(PruningError):
            prune(pattern=text)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
@pytest.mark.parametrize(("pattern", "m"), [("2:5", 5), ("4:8", 8)])
def test_width_that_is_no_multiple_of_the_group(method: str, pattern: str, m: int) -> None:
    with pytest.raises(PruningError, match=f"multiple of {m}.*12"):
        prune(method, pattern)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("method", "random"),
        ("metric", "gradient"),
        ("scope", "model"),
        ("update", "both"),
        ("outlier_score", "largest"),
    ],
)
def test_unknown_names(option: str, value: str) -> None:
    with pytest.raises(PruningError, match=value):
        prune(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("block_size", 0),
        ("block_size", -128),
        ("outlier_fraction", -0.1),
        ("outlier_fraction", 1.0),
        ("outlier_fraction", math.nan),
        ("damping", -0.01),
        ("damping", math.nan),
        ("refine_steps", -1),
    ],
)
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.5"])
def test_values_out_of_range(pattern: str, option: str, value: float) -> None:
    with pytest.raises(PruningError, match=option.split("_")[0]):
        prune(pattern=pattern, **{option: value})


@pytest.mark.parametrize("pattern", ["2:4", "structured:0.5"])
def test_scope_has_no_meaning_where_the_pattern_sets_it(pattern: str) -> None:
    with pytest.raises(PruningError, match="scope"):
        prune(pattern=pattern, scope="row")


def test_residual_scope_needs_an_update() -> None:
    with pytest.raises(PruningError, match="residual"):
        prune(scope="residual", update="none")


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
@pytest.mark.parametrize("pattern", ["0.6", "structured:0.6"])
def test_outlier_rows_that_leave_too_few_others(method: str, pattern: str) -> None:
    """Half of six rows dense: the others hold 50% of the layer, not 60%."""
    with pytest.raises(PruningError, match="outlier"):
        prune(method, pattern, outlier_fraction=0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
def test_weight_that_is_not_finite(method: str, bad: float) -> None:
    weight = LAYER.W.clone()
    weight[2, 3] = bad
    with pytest.raises(PruningError, match=r"weight.*finite"):
        prune_weight(weight, LAYER.statistics(), method, "0.5")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "thanos"])
def test_inputs_that_are_not_finite(method: str, bad: float) -> None:
    statistics = LAYER.statistics()
    statistics.update(torch.tensor([[bad] + [1.0] * 11]))
    with pytest.raises(PruningError, match="finite"):
        prune_weight(LAYER.W, statistics, method, "0.5")


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(PruningError, match=r"12.*11|11.*12"):
        prune_weight(LAYER.W[:, :11], LAYER.statistics(), "thanos", "0.5")
    with pytest.raises(PruningError, match="shape"):
        prune_weight(LAYER.W[0], LAYER.statistics(), "thanos", "0.5")


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "thanos"])
def test_missing_statistics(method: str) -> None:
    with pytest.raises(PruningError, match="statistics"):
        prune_weight(LAYER.W, None, method, "0.5")
    with pytest.raises(PruningError, match="token"):
        prune_weight(LAYER.W, InputStatistics(12), method, "0.5")


@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_diagonal_where_the_gram_matrix_is_needed(method: str) -> None:
    with pytest.raises(PruningError, match="Gram"):
        prune_weight(LAYER.W, LAYER.statistics(gram=False), method, "0.5")
    with pytest.raises(PruningError, match="Gram"):
        prune_weight(LAYER.W, LAYER.statistics(gram=False), "wanda", "0.5", refine_steps=1)


def correlated(off_diagonal: float) -> InputStatistics:
    """G = [[1, g], [g, 1]]: its smaller eigenvalue is 1 − g, so it takes a damping above g − 1."""
    statistics = InputStatistics(2, dtype=torch.float64)
    statistics.update(torch.eye(2))
    statistics.gram[[0, 1], [1, 0]] = off_diagonal
    return statistics


@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_damping_grows_tenfold_until_the_factorisation_succeeds(method: str) -> None:
    W = torch.tensor([[1.0, 2.0]])
    for off_diagonal, used in ((0.5, 0.01), (1.05, 0.1), (1.5, 1.0), (6.0, 10.0)):
        result = prune_weight(W, correlated(off_diagonal), method, "0.5", dtype=torch.float64)
        assert result.damping == pytest.approx(used)
        lifted = 2 + off_diagonal / (1 + used)
        assert result.weight[0].tolist() == pytest.approx([0, lifted])


@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_factorisation_that_never_succeeds(method: str) -> None:
    with pytest.raises(PruningError, match=r"0\.01, 0\.1, 1, 10.*damping"):
        prune_weight(
            torch.tensor([[1.0, 2.0]]), correlated(50.0), method, "0.5", dtype=torch.float64
        )
