"""The pattern that removes columns by units: the choice by summed losses, counts, refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import property_test, random_layer
from torch import Tensor

from thanos.pruning import HeadsAndNeurons, PruningError, Structured, parse_pattern, prune_weight

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos", "admm")
LAYER = random_layer(c=10, b=24, tokens=80)


def prune(method: str, pattern: str, **options: object):
    return prune_weight(
        LAYER.W, LAYER.statistics(), method, pattern, dtype=torch.float64, damping=1e-3, **options
    )


def column_losses(method: str) -> Tensor:
    """What a column costs, as the method ranks columns before anything has moved."""
    W, norms = LAYER.W, LAYER.X.square().sum(0).sqrt()
    if method == "magnitude":
        return W.abs().mean(0)
    if method == "wanda":
        return (W.abs() * norms).mean(0)
    if method == "thanos":
        return (W * norms).square().sum(0)
    G = LAYER.G + 1e-3 * LAYER.G.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    U = torch.linalg.cholesky(torch.linalg.inv(G), upper=True)
    return (W / U.diagonal()).square().sum(0)


@pytest.mark.parametrize("unit", [2, 3, 8])
@pytest.mark.parametrize("method", METHODS[:4])
def test_the_units_of_the_smallest_summed_losses_go(method: str, unit: int) -> None:
    count = round(0.4 * 24 / unit)
    losses = column_losses(method).view(-1, unit).sum(1)
    expected = torch.zeros(24 // unit, dtype=torch.bool)
    expected[losses.argsort()[:count]] = True

    result = prune(method, "heads-neurons:0.4", unit=unit)

    assert torch.equal(result.mask, expected.repeat_interleave(unit).expand(10, -1))
    assert int((result.weight == 0).sum()) == 10 * unit * count


@pytest.mark.parametrize("method", METHODS[:4])
def test_what_stays_moves_as_for_given_columns(method: str) -> None:
    """Once the units are chosen there is no difference to the paper's pattern."""
    result = prune(method, "heads-neurons:0.5", unit=4)
    options = {"block_size": 24} if method == "sparsegpt" else {}
    given = prune(method, "structured:0.5", given_mask=result.mask, **options)
    torch.testing.assert_close(result.weight, given.weight, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_single_columns_are_those_of_the_paper_s_pattern(method: str) -> None:
    one, other = prune(method, "heads-neurons:0.25"), prune(method, "structured:0.25")
    assert torch.equal(one.weight, other.weight)


def test_the_alternating_update_ends_with_whole_units() -> None:
    result = prune("admm", "heads-neurons:0.5", unit=6)
    units = result.mask[0].view(-1, 6)
    assert torch.equal(units.any(1), units.all(1))
    assert int(units.all(1).sum()) == 2


@property_test(100)
@given(p=st.floats(0, 0.95), units=st.integers(1, 12), unit=st.integers(1, 6))
def test_the_nearest_number_of_units_goes(p: float, units: int, unit: int) -> None:
    removed = HeadsAndNeurons(p).removed(5, units * unit, 5, unit)
    assert removed % unit == 0
    assert abs(removed / unit - p * units) <= 0.5 + 1e-6


def test_the_text() -> None:
    pattern = parse_pattern("heads-neurons:0.3")
    assert pattern == HeadsAndNeurons(0.3) != Structured(0.3)
    assert (str(pattern), pattern.sparsity) == ("heads-neurons:0.3", 0.3)
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("heads-neurons:0.5", {"outlier_fraction": 0.1}, "leaves no narrower model"),
        ("heads-neurons:0.9", {"unit": 12}, "would leave none of 2 units of 12 columns"),
        ("heads-neurons:0.5", {"unit": 5}, "none of 4.8 units"),
        ("structured:0.5", {"unit": 4}, "unit 4 has no meaning for pattern structured:0.5"),
        ("0.5", {"unit": 4}, "unit 4 has no meaning"),
    ],
)
def test_requests_that_are_refused(pattern: str, options: dict, message: str) -> None:
    with pytest.raises(PruningError, match=message):
        prune("thanos", pattern, **options)


def test_a_given_mask_has_whole_units() -> None:
    mask = torch.zeros(10, 24, dtype=torch.bool)
    mask[:, 2:14] = True
    prune("thanos", "heads-neurons:0.5", given_mask=mask)
    with pytest.raises(PruningError, match="does not have the pattern heads-neurons"):
        prune("thanos", "heads-neurons:0.5", given_mask=mask, unit=4)
