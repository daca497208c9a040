"""Channels that change places between the groups of an n:m pattern."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import Layer, layers, property_test, random_layer
from torch import Tensor

from thanos.pruning import PruningError, SemiStructured, permutation, prune_weight
from thanos.pruning.permutation import column_order, permuted_channels

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos", "admm")
NEURONS = torch.arange(24).view(1, 24, 1)
# Two heads of eight channels each share a value of eight, and two others another: 32 columns.
HEADS = torch.arange(32).view(2, 2, 8).transpose(1, 2)


def kept(scores: Tensor, order: Tensor, pattern: SemiStructured) -> float:
    """What an n:m pattern keeps of the scores of columns in an order."""
    groups = scores[:, order].unflatten(1, (-1, pattern.m))
    return float(groups.topk(pattern.n, -1).values.sum())


def uneven(c: int, b: int, seed: int = 0) -> Layer:
    """A layer whose columns differ in size, as those of a trained one do."""
    layer = random_layer(c, b, tokens=4 * b, seed=seed)
    scale = torch.randn(b, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Layer(layer.W * scale.exp(), layer.X)


@property_test(60)
@given(layers(m=4), st.integers(1, 3))
def test_no_less_is_kept_than_in_the_given_order(layer: Layer, n: int) -> None:
    pattern, b = SemiStructured(n, 4), layer.W.shape[1]
    channels = torch.arange(b).view(1, b, 1)
    (order,) = permuted_channels(layer.W, torch.ones(b, dtype=torch.float64), channels, pattern)
    scores = layer.W.abs()
    assert torch.equal(order.sort().values, torch.arange(b))
    assert kept(scores, order, pattern) >= kept(scores, torch.arange(b), pattern) * (1 - 1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_each_place_of_all_groups_is_assigned_best(n: int) -> None:
    """Against all 120 ways to put one channel into each of five groups."""
    pattern, ones = SemiStructured(n, 4), torch.ones(20, dtype=torch.float64)
    scores = uneven(7, 20, seed=n).W.abs()
    pool = permutation._Scores(scores, ones, torch.arange(20)[:, None])
    groups = torch.randperm(20, generator=torch.Generator().manual_seed(n)).view(5, 4)
    for place in range(4):
        best = 0.0
        for way in permutations(range(5)):
            tried = groups.clone()
            tried[:, place] = groups[list(way), place]
            best = max(best, kept(scores, tried.flatten(), pattern))
        groups[:, place] = permutation._assigned(pool, groups, place, n)
        assert kept(scores, groups.flatten(), pattern) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("channels", [NEURONS, HEADS], ids=["neurons", "heads"])
@pytest.mark.parametrize("method", METHODS)
def test_the_layer_is_pruned_as_one_whose_inputs_come_in_that_order(
    method: str, channels: Tensor
) -> None:
    layer = uneven(12, channels.numel())
    options = {"dtype": torch.float64, "outlier_fraction": 0.1, "refine_steps": 3}

    result = prune_weight(layer.W, layer.statistics(), method, "2:4", channels=channels, **options)

    order = column_order(channels, result.channel_order, channels.numel())
    moved = Layer(layer.W[:, order], layer.X[:, order])
    expected = prune_weight(moved.W, moved.statistics(), method, "2:4", **options)
    torch.testing.assert_close(result.weight, expected.weight, rtol=1e-9, atol=1e-9)
    assert torch.equal(result.mask, expected.mask)
    assert result.relative_error == pytest.approx(expected.relative_error, rel=1e-9)
    assert result.details["channels_moved"] > 0
    assert expected.channel_order is None


def test_less_of_the_outputs_is_lost() -> None:
    layer = uneven(16, 24)
    with_order, without = (
        prune_weight(layer.W, layer.statistics(), "thanos", "2:4", channels=channels)
        for channels in (NEURONS, None)
    )
    assert with_order.relative_error < 0.9 * without.relative_error


def test_the_correction_comes_first() -> None:
    """The weights that aim at the dense model's outputs are those that are dealt out."""
    layer = uneven(12, 24)
    dense = layer.X + 0.3 * layer.X.roll(1, dims=1)
    options = {"dtype": torch.float64, "correction": 0.75}

    result = prune_weight(
        layer.W, layer.statistics(dense=dense), "thanos", "2:4", channels=NEURONS, **options
    )

    order = column_order(NEURONS, result.channel_order, 24)
    moved = Layer(layer.W[:, order], layer.X[:, order])
    statistics = moved.statistics(dense=dense[:, order])
    expected = prune_weight(moved.W, statistics, "thanos", "2:4", **options)
    torch.testing.assert_close(result.weight, expected.weight, rtol=1e-9, atol=1e-9)


def test_channels_stay_in_their_pool_and_their_copies_together() -> None:
    layer = uneven(12, 32)
    result = prune_weight(layer.W, layer.statistics(), "wanda", "2:4", channels=HEADS)
    order = column_order(HEADS, result.channel_order, 32)
    for pool in HEADS:
        first, second = order[pool[:, 0]], order[pool[:, 1]]
        assert torch.equal(first.sort().values, pool[:, 0])
        assert torch.equal(second - first, torch.full((8,), 8))


def test_a_pool_that_is_no_whole_number_of_groups_stays() -> None:
    layer = uneven(12, 24)
    six = torch.arange(24).view(4, 6, 1)
    result = prune_weight(layer.W, layer.statistics(), "wanda", "2:4", channels=six)
    assert torch.equal(result.channel_order, torch.arange(6).expand(4, 6))
    assert result.details["channels_moved"] == 0


def test_the_order_is_the_same_whatever_memory_there_is() -> None:
    """Many channels are equal here, so that rounding decides; it must not depend on the machine."""
    W = uneven(64, 24).W.float()
    W[:, 12:] = W[:, :12]
    orders = []
    for budget in (2**10, 2**30):
        statistics = Layer(W.double(), torch.eye(24, dtype=torch.float64)).statistics()
        result = prune_weight(W, statistics, "wanda", "2:4", channels=NEURONS, memory_budget=budget)
        orders.append(result.channel_order)
    assert torch.equal(*orders)


def test_rows_that_are_taken_in_segments_give_the_same_groups(monkeypatch) -> None:
    layer = uneven(64, 24)
    scale = torch.ones(24, dtype=torch.float64)
    found = []
    for segment in (24 * 8 * 5, 2**22):
        monkeypatch.setattr(permutation, "_SEGMENT", segment)
        (order,) = permuted_channels(layer.W, scale, NEURONS, SemiStructured(2, 4))
        found.append(kept(layer.W.abs(), order, SemiStructured(2, 4)))
    assert found[0] == pytest.approx(found[1], rel=1e-12)


@pytest.mark.parametrize("layer_errors", [True, False])
def test_magnitude_deals_out_magnitudes_whatever_is_measured(layer_errors: bool) -> None:
    layer = uneven(12, 24)
    result = prune_weight(
        layer.W,
        layer.statistics() if layer_errors else None,
        "magnitude",
        "2:4",
        channels=NEURONS,
    )
    ones = torch.ones(24, dtype=torch.float64)
    expected = permuted_channels(layer.W, ones, NEURONS, SemiStructured(2, 4))
    assert torch.equal(result.channel_order, expected)


def test_half_precision_is_dealt_out_in_float32() -> None:
    layer = uneven(12, 24)
    statistics = layer.statistics(dtype=torch.float32)
    W = layer.W.bfloat16()
    half, full = (
        prune_weight(each, statistics, "wanda", "2:4", channels=NEURONS) for each in (W, W.float())
    )
    assert torch.equal(half.channel_order, full.channel_order)
    assert half.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("0.5", {}, "not under unstructured:0.5"),
        ("structured:0.3", {}, "not under structured:0.3"),
        (
            "2:4",
            {"given_mask": torch.arange(24).expand(12, 24) % 4 < 2},
            "not under 2:4 with a mask that is given",
        ),
    ],
)
def test_what_has_no_groups_to_choose_is_refused(pattern, options, message) -> None:
    layer = uneven(12, 24)
    with pytest.raises(PruningError, match=message):
        prune_weight(layer.W, layer.statistics(), "thanos", pattern, channels=NEURONS, **options)
