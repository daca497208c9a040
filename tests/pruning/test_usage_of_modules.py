"""What a method says of itself without running: which modules it runs, whether B matters to it."""

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import product
from types import FrameType

import pytest
import torch
from layers import random_layer

from thanos.pruning import (
    METRICS,
    SCOPES,
    UPDATES,
    InputStatistics,
    Method,
    PruningError,
    compose,
    parse_pattern,
    prune_weight,
)

PATTERNS = ("0.5", "2:4", "structured:0.25")
# Modules that only some methods run; the others belong to all of them.
OPTIONAL = (
    *("factorization", "updates", "sequential", "alternating"),
    *("conjugate_gradient", "refinement", "correction"),
)
LAYER = random_layer(c=12, b=16, tokens=48)


def methods(text: str) -> list[Method]:
    """Every point of metric × scope × update that has a meaning for the pattern."""
    pattern, found = parse_pattern(text), []
    for metric, scope, update in product(METRICS, SCOPES, UPDATES):
        try:
            found.append(compose(Method(metric, scope, update), pattern))
        except PruningError:
            assert scope == "residual"
            assert update in ("none", "alternating")
    return found


def describe(value: str | Method) -> str:
    """A case's name."""
    return value if isinstance(value, str) else f"{value.metric}-{value.scope}-{value.update}"


CASES = [(text, method) for text in PATTERNS for method in methods(text)]


def called(function: Callable[[], object]) -> set[str]:
    """The optional modules whose functions it calls, C functions and class bodies aside."""
    files = {import_module(f"thanos.pruning.{name}").__file__: name for name in OPTIONAL}
    found: set[str] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := files.get(frame.f_code.co_filename)):
            found.add(name)

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize(("refine_steps", "correction"), [(0, 0.0), (3, 0.0), (0, 0.5)])
@pytest.mark.parametrize(("text", "method"), CASES, ids=describe)
def test_exactly_the_modules_that_are_not_named_unused_run(
    text: str, method: Method, refine_steps: int, correction: float
) -> None:
    """With and without outlier rows, of either score, and whether the error is measured or not."""
    unused = method.modules_unused(parse_pattern(text), refine_steps, correction)
    assert unused <= {*OPTIONAL}
    for alpha, outlier_score, measure_error in (
        *((0.0, "exact", True), (0.0, "exact", False)),
        *((0.1, "exact", True), (0.1, "separable", True)),
    ):
        ran = called(
            lambda: prune_weight(
                LAYER.W,
                LAYER.statistics(dense=2 * LAYER.X),
                method,
                text,
                block_size=8,
                refine_steps=refine_steps,
                correction=correction,
                outlier_fraction=alpha,  # noqa: B023 (called at once)
                outlier_score=outlier_score,  # noqa: B023
                measure_error=measure_error,  # noqa: B023
            )
        )
        assert ran == {*OPTIONAL} - unused


def test_without_statistics_none_of_them_runs() -> None:
    assert called(lambda: prune_weight(LAYER.W, None, "magnitude", "0.5")) == set()


def correlated(seed: int) -> tuple[torch.Tensor, InputStatistics]:
    """A weight (24, 64) and statistics of correlated inputs, in the precision of a real run."""
    layer = random_layer(c=24, b=64, tokens=256, seed=seed)
    return layer.W.float(), layer.statistics(dtype=torch.float32)


@pytest.mark.parametrize(("text", "method"), CASES, ids=describe)
def test_the_block_size_matters_exactly_where_blocks_are_walked(text: str, method: Method) -> None:
    def same(seed: int) -> bool:
        """Whether B = 8 and B = 32 give the same weights, bit for bit."""
        layer = correlated(seed)
        small, large = (prune_weight(*layer, method, text, block_size=B) for B in (8, 32))
        return torch.equal(small.weight, large.weight)

    assert all(same(seed) for seed in range(3)) != method.walks_blocks(parse_pattern(text))
