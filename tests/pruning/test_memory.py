"""What pruning a layer takes besides the layer: within the budget, and exact whatever it is."""

import copy
import gc

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from thanos.pruning import InputStatistics, PruningResult, prune_weight
from thanos.timing.synthetic import synthetic_layer

MIB = 2**20


def prune_counting(
    W: Tensor, statistics: InputStatistics, method: str, budget: int
) -> tuple[PruningResult, int]:
    """The result, and the most bytes that were allocated beyond it, its mask and U."""
    statistics = copy.deepcopy(statistics)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = prune_weight(W, statistics, method, "0.5", memory_budget=budget)
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    allocated = peak = 0
    for _, change in changes:
        allocated += change
        peak = max(peak, allocated)
    factor = statistics.inverse_factor(0.01, torch.float32).U
    return result, peak - sum(kept.nbytes for kept in (result.weight, result.mask, factor))


@pytest.mark.parametrize("method", ["sparsegpt", "thanos", "admm"])
@pytest.mark.parametrize(
    ("size", "budgets"),
    [
        (1024, (7, 64)),
        pytest.param(4096, (32, 256), marks=pytest.mark.slow),
    ],
)
def test_temporaries_stay_within_the_budget(
    size: int, budgets: tuple[int, ...], method: str
) -> None:
    """The same weights, bit for bit, under a budget that splits the rows and one that does not."""
    layer = synthetic_layer((size, size))
    results = []
    for budget in budgets:
        result, beyond = prune_counting(layer.W, layer.inputs, method, budget * MIB)
        print(f"{method} {size} x {size}, budget {budget} MiB: {beyond / MIB:.1f} MiB beyond")
        assert beyond <= budget * MIB
        results.append(result)
    assert torch.equal(results[0].mask, results[1].mask)
    assert torch.equal(results[0].weight, results[1].weight)


def test_a_small_budget_is_what_bounds_them() -> None:
    layer = synthetic_layer((1024, 1024))
    _, beyond = prune_counting(layer.W, layer.inputs, "thanos", 64 * MIB)
    assert beyond > 7 * MIB


@pytest.mark.parametrize("method", ["sparsegpt", "thanos", "admm"])
@pytest.mark.parametrize("pattern", ["0.5", "2:4", "structured:0.25"])
def test_no_tensor_outlives_its_layer(method: str, pattern: str) -> None:
    """Cycles of references would keep a layer's temporaries until Python looks for them."""

    def tensors() -> int:
        return sum(type(kept) is Tensor for kept in gc.get_objects())

    layer = synthetic_layer((64, 64))
    prune_weight(layer.W, copy.deepcopy(layer.inputs), method, pattern, block_size=16)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        prune_weight(layer.W, copy.deepcopy(layer.inputs), method, pattern, block_size=16)
        assert tensors() == before
    finally:
        gc.enable()
