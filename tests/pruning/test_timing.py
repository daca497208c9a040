"""The baselines of the timing suite compute what the oracle computes; the measuring adds up."""

import time
from collections.abc import Callable

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import Layer, layers, property_test
from torch import Tensor

from thanos.pruning import Pattern, PruningError, parse_pattern
from thanos.timing.baselines import batched_thanos, plain_sparsegpt, pseudocode_thanos
from thanos.timing.measure import (
    KNOWN_METHODS,
    growth_exponent,
    measure_alternating,
    peak_memory,
    time_layer,
)
from thanos.timing.synthetic import synthetic_layer

CPU = torch.device("cpu")
Baseline = Callable[[Tensor, Tensor, Pattern, int], Tensor]


@pytest.mark.parametrize(
    ("baseline", "method"),
    [
        (pseudocode_thanos, "thanos"),
        (batched_thanos, "thanos"),
        (plain_sparsegpt, "sparsegpt"),
    ],
)
@property_test(30)
@given(
    layer=layers(m=4),
    pattern=st.sampled_from(("0", "0.29", "0.5", "0.9", "2:4", "1:4", "structured:0.3")),
    groups=st.integers(1, 12),
)
def test_baselines_match_the_oracle(
    baseline: Baseline, method: str, layer: Layer, pattern: str, groups: int
) -> None:
    expected = oracle.prune(layer.W, layer.G, method, pattern, B=4 * groups)
    before = layer.W.clone()
    result = baseline(layer.W, layer.G, parse_pattern(pattern), 4 * groups)
    assert (result - expected.weight).norm() <= 1e-8 * expected.weight.norm()
    assert torch.equal(result == 0, expected.weight == 0)
    assert torch.equal(layer.W, before)


def test_baselines_solve_large_systems_on_several_threads() -> None:
    """LU factorisations of many matrices at once go wrong there, from about 255 columns on."""
    layer, threads = synthetic_layer((64, 512)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = [
            baseline(layer.W, layer.inputs.gram, parse_pattern("2:4"), 512)
            for baseline in (batched_thanos, pseudocode_thanos)
        ]
    finally:
        torch.set_num_threads(threads)
    # Measured: 1.1e-5 between the two solvers in float32.
    assert (results[0] - results[1]).norm() <= 1e-4 * results[1].norm()


def test_calls_alternate_and_are_timed_alone() -> None:
    order = []

    def sleep(name: str) -> str:
        order.append(name)
        time.sleep(0.01)
        return name

    def argument(name: str) -> str:
        time.sleep(0.2)  # no part of the measured time
        return name

    measured = measure_alternating({"a": sleep, "b": sleep}, argument, CPU, repeats=3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]  # the first two warm up
    for name, measurement in measured.items():
        assert measurement.result == name
        assert len(measurement.seconds) == 3
        assert min(measurement.seconds) >= 0.01
        assert measurement.median < 0.2


def test_slow_calls_are_not_repeated() -> None:
    """One is timed by its warm-up, one once it has taken long enough, one as often as asked for."""
    calls = {"slow": 0.2, "middling": 0.06, "fast": 0.0}
    measured = measure_alternating(
        dict.fromkeys(calls, time.sleep), calls.__getitem__, CPU, repeats=4, patience=0.1
    )
    counts = {name: len(measurement.seconds) for name, measurement in measured.items()}
    assert counts == {"slow": 1, "middling": 2, "fast": 4}
    assert measured["slow"].median >= 0.2
    assert measured["slow"].processor_seconds[0] < 0.1


def test_peak_memory_sees_what_was_freed_again() -> None:
    with peak_memory(CPU) as peak:
        block = torch.ones(50_000_000, dtype=torch.uint8)
        time.sleep(0.1)
        del block
    assert 45e6 < peak.bytes < 80e6


def test_growth_exponent() -> None:
    assert growth_exponent([1, 2, 4], [5, 40, 320]) == pytest.approx(3)
    with pytest.raises(ValueError, match="constant"):
        growth_exponent([8, 8], [1, 2])


def test_synthetic_layer_is_reproducible_and_correlated() -> None:
    first, second = (synthetic_layer((8, 32)) for _ in range(2))
    assert torch.equal(first.W, second.W)
    assert torch.equal(first.inputs.gram, second.inputs.gram)
    assert first.inputs.tokens == 64
    assert torch.allclose(first.diagonal.squared_norms, first.inputs.squared_norms)
    norms = first.inputs.squared_norms.sqrt()
    correlations = first.inputs.gram / norms / norms[:, None]
    assert correlations.fill_diagonal_(0).abs().max() > 0.5


@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.25"])
def test_a_row_for_every_method(pattern: str) -> None:
    rows = time_layer((16, 64), pattern=pattern, block_size=16, repeats=2)
    assert [row["method"] for row in rows] == list(KNOWN_METHODS)
    for row in rows:
        assert row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["sparsity"] == (0.25 if "structured" in pattern else 0.5)
    error = {row["method"]: row["relative_error"] for row in rows}
    for baseline in ("pseudocode-thanos", "batched-thanos"):
        assert error[baseline] == pytest.approx(error["thanos"], rel=1e-3)
    assert error["plain-sparsegpt"] == pytest.approx(error["sparsegpt"], rel=1e-3)
    assert error["thanos"] < error["wanda"] < error["magnitude"]


def test_impossible_requests() -> None:
    with pytest.raises(ValueError, match="slow"):
        time_layer((4, 8), methods=["slow"])
    with pytest.raises(ValueError, match="repeats"):
        time_layer((4, 8), repeats=0)
    with pytest.raises(PruningError, match="multiple"):
        time_layer((4, 6), pattern="2:4", methods=["thanos"])
