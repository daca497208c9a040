"""Single layers on an accelerator: every method, pattern and option, in single and half precision.

The reference is computed on the host in float64 from the same weights and inputs. Half precision
rounds what is left of the weights, by 2⁻¹¹ (float16) or 2⁻⁸ (bfloat16) of each: an error of its
own, beside which the loss of pruning hardly changes.
"""

import itertools

import pytest
import torch

from thanos.pruning import Alternation, InputStatistics, prune_weight
from thanos.pruning.conjugate_gradient import solve_masked
from thanos.pruning.factorization import factorize
from thanos.pruning.selection import smallest_per_group
from thanos.pruning.sequential import sequential_update

C, B = 40, 64
METHODS = ("magnitude", "wanda", "sparsegpt", "thanos", "admm")
PATTERNS = ("0.5", "2:4", "4:8", "structured:0.3")
OPTIONS = (
    {},
    {"outlier_fraction": 0.1},
    {"outlier_fraction": 0.1, "outlier_score": "separable", "refine_steps": 4},
    {"correction": 0.5, "refine_steps": 4, "memory_budget": 2**15},
)
# Of the loss, which is flat around its minimum: of half precision's rounding the square counts,
# 3e-4 at most is measured. A weight that changes sides of a threshold counts little more.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 2e-3}


def tensors(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, its inputs, and the inputs in the dense model; some inputs are dead."""
    generator = torch.Generator().manual_seed(0)
    weight, mixing = torch.randn(C, B, generator=generator), torch.randn(B, B, generator=generator)
    x = torch.randn(400, B, generator=generator) @ (torch.eye(B) + 0.06 * mixing)
    x[:, [3, 40]] = 0
    dense = x + 0.1 * torch.randn(400, B, generator=generator)
    return weight.to(dtype), x.to(dtype), dense.to(dtype)


def prune(weight, x, dense, method, pattern, **options):
    """Statistics and pruning where the tensors lie."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    statistics = InputStatistics(B, cross=True, dtype=wide, device=x.device)
    for part, its in zip(x.split(150), dense.split(150), strict=True):
        statistics.update(part, its)
    choices = {"block_size": 16, "dtype": wide, "alternation": Alternation(6, schedule=4)}
    return prune_weight(weight, statistics, method, pattern, **{**choices, **options})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16],
)
def test_every_method_pattern_and_option(accelerator, dtype, method):
    given = tensors(dtype)
    there = [x.to(accelerator) for x in given]
    options_tried = OPTIONS if dtype == torch.float32 else (OPTIONS[0], OPTIONS[-1])
    for pattern, options in itertools.product(PATTERNS, options_tried):
        result = prune(*there, method, pattern, **options)
        expected = prune(*(x.double() for x in given), method, pattern, **options)

        assert result.weight.device == result.mask.device == accelerator
        assert result.weight.dtype == dtype
        assert (result.weight[result.mask] == 0).all()
        assert int(result.mask.sum()) == int(expected.mask.sum()), (pattern, options)
        assert result.relative_error == pytest.approx(
            expected.relative_error, rel=TOLERANCES[dtype]
        ), (pattern, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_change_places(accelerator, dtype):
    given, channels = tensors(dtype), torch.arange(B).view(2, B // 2, 1)
    there = prune(*(x.to(accelerator) for x in given), "wanda", "2:4", channels=channels)
    expected = prune(*given, "wanda", "2:4", channels=channels)
    assert there.channel_order.device == accelerator
    assert torch.equal(there.channel_order.cpu(), expected.channel_order)
    assert there.relative_error == pytest.approx(expected.relative_error, rel=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [300, 2300])
def test_a_gram_matrix_in_one_square_and_in_several(accelerator, dtype, width):
    """Of whole numbers, so that every order of sums gives the same."""
    x = torch.randint(-8, 9, (70, width), generator=torch.Generator().manual_seed(0))
    statistics = InputStatistics(width, device=accelerator)
    statistics.update(x.to(accelerator, dtype))
    assert torch.equal(statistics.gram.cpu(), (x.T.double() @ x.double()).float())


@pytest.mark.parametrize("rows", [5, 40_000])
@pytest.mark.parametrize(("removed", "m"), [(2, 4), (4, 8), (1, 3), (4, 4), (0, 4)])
def test_the_smallest_of_groups_few_and_many(accelerator, rows, removed, m):
    scores = torch.randint(0, 4, (rows, 2 * m), generator=torch.Generator().manual_seed(0)).float()
    found = smallest_per_group(scores.to(accelerator), removed, m)
    order = scores.view(rows, 2, m).argsort(dim=2, stable=True)
    expected = torch.zeros(rows, 2, m, dtype=torch.bool)
    expected.scatter_(2, order[:, :, :removed], True)
    assert torch.equal(found.cpu(), expected.flatten(1))


def giving_up_at_once(*args, **options):
    """Leaves rows to be solved directly."""
    return solve_masked(*args, **{**options, "max_iterations": 1})


@pytest.mark.parametrize("method", METHODS)
def test_a_device_without_float64(virtual, monkeypatch, method):
    monkeypatch.setattr("thanos.accelerator._WITHOUT_FLOAT64", {virtual.NAME})
    monkeypatch.setattr("thanos.pruning.updates.solve_masked", giving_up_at_once)
    given = tensors(torch.float32)
    expected = [prune(*given, method, pattern, **OPTIONS[-1]) for pattern in PATTERNS]
    assert (expected[0].details["rows_solved_directly"] > 0) == (method == "thanos")
    virtual.module.has_float64 = False
    there = [x.to(virtual.DEVICE) for x in given]
    for pattern, reference in zip(PATTERNS, expected, strict=True):
        result = prune(*there, method, pattern, **OPTIONS[-1])
        assert result.details == reference.details
        assert result.relative_error == pytest.approx(reference.relative_error, rel=1e-5)


@pytest.fixture
def systems(virtual):
    """A matrix, right sides and supports."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(64, 64, generator=generator)
    A = A @ A.T + torch.eye(64)
    rhs, mask = (
        torch.randn(C, 64, generator=generator),
        torch.rand(C, 64, generator=generator) < 0.5,
    )
    return [x.to(virtual.DEVICE) for x in (A, rhs, mask)]


def test_convergence_is_looked_at_every_eighth_iteration(virtual, systems):
    virtual.waits.clear()
    solve_masked(*systems, tolerance=0.0, max_iterations=40)
    assert sum(virtual.waits.values()) == 40 // 8 + 1


def test_an_iteration_and_a_column_ask_for_a_few_operations(virtual, systems):
    counted = []
    for iterations in (1, 7):  # no look between them
        virtual.operations.clear()
        solve_masked(*systems, tolerance=0.0, max_iterations=iterations)
        counted.append(sum(virtual.operations.values()))
    assert counted[1] - counted[0] == 6 * 19
    A, W, mask = systems
    factor = factorize(A, 0.01, torch.float32)
    virtual.operations.clear()
    sequential_update(W, factor, 0, 64, mask)
    # For each of 64 columns two, less one in every 8; for each 8 their shares and a product.
    assert sum(virtual.operations.values()) <= 2 * 64 - 8 + 2 * 8 + 8


@pytest.mark.parametrize(
    ("method", "pattern", "per_block", "per_layer"),
    [
        ("thanos", "0.5", 8, 10),  # of it 4 choose, and 1 counts what is left to choose
        ("thanos", "2:4", 5, 8),
        ("sparsegpt", "0.5", 1, 8),
        ("wanda", "2:4", 0, 4),
    ],
)
def test_a_layer_waits_a_few_times_per_block_whatever_its_rows(
    virtual, method, pattern, per_block, per_layer
):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(800, 512, generator=generator).to(virtual.DEVICE)
    statistics = InputStatistics(512, device=virtual.DEVICE)
    statistics.update(x)
    counted = []
    for rows in (200, 400):  # of 512: more than the scores that are simply sorted
        weight = torch.randn(rows, 512, generator=generator).to(virtual.DEVICE)
        virtual.waits.clear()
        prune_weight(weight, statistics, method, pattern, block_size=128)
        counted.append(sum(virtual.waits.values()))
    assert max(counted) <= 4 * per_block + per_layer
    assert abs(counted[1] - counted[0]) <= 6  # a bracket that was missed, a look more
