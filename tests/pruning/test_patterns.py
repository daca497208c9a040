"""Patterns as text, and the shapes that can have them."""

import math
from fractions import Fraction
from math import ceil, floor

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from layers import property_test, random_layer

from thanos.pruning import (
    Pattern,
    PruningError,
    SemiStructured,
    Structured,
    Unstructured,
    check_shape,
    parse_pattern,
    prune_weight,
)

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")
# Decimals, so that an exact fraction says what a count is.
SHARES = st.integers(0, 199).map(lambda k: f"{k / 200}")
COUNTS = st.integers(1, 9).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m + 1)))
TEXTS = SHARES | SHARES.map("structured:{}".format) | COUNTS.map(lambda nm: "{}:{}".format(*nm))


@pytest.mark.parametrize(
    ("text", "pattern", "sparsity"),
    [
        ("0.5", Unstructured(0.5), 0.5),
        (0.5, Unstructured(0.5), 0.5),
        (" unstructured:.5 ", Unstructured(0.5), 0.5),
        ("structured:0.3", Structured(0.3), 0.3),
        ("2:4", SemiStructured(2, 4), 0.5),
        ("1:8", SemiStructured(1, 8), 0.875),
    ],
)
def test_forms(text: str | float, pattern: Pattern, sparsity: float) -> None:
    assert parse_pattern(text) == pattern
    assert parse_pattern(pattern) is pattern
    assert parse_pattern(text).sparsity == sparsity


@pytest.mark.parametrize(
    ("kind", "made"), [("unstructured", Unstructured), ("structured", Structured)]
)
@property_test(100)
@given(p=st.floats(0, 1, exclude_max=True))
@example(p=1e-05)
@example(p=0.1 + 0.2)
@example(p=5e-324)
@example(p=math.nextafter(1, 0))
def test_the_text_keeps_every_digit(kind: str, made: type[Pattern], p: float) -> None:
    pattern = parse_pattern(f"{kind}:{p!r}")
    assert pattern == made(p)
    assert parse_pattern(str(pattern)) == pattern
    assert str(parse_pattern(str(pattern))) == str(pattern)
    if made is Unstructured:
        assert parse_pattern(p) == parse_pattern(repr(p)) == pattern


@property_test(50)
@given(nm=COUNTS)
def test_the_text_of_groups(nm: tuple[int, int]) -> None:
    assert parse_pattern(str(SemiStructured(*nm))) == SemiStructured(*nm)


@pytest.mark.parametrize("kind", ["", "unstructured:", "structured:"])
def test_a_negative_zero_is_zero(kind: str) -> None:
    negative, positive = parse_pattern(f"{kind}-0.0"), parse_pattern(f"{kind}0")
    assert negative == positive
    assert str(negative) == str(positive)


def possible(rows: int, columns: int, text: str, alpha: Fraction) -> bool:
    """Whether there are enough weights to remove beside ⌈αc⌉ dense rows, in exact arithmetic."""
    pruned = rows - ceil(alpha * rows)
    if pruned == 0:
        return False
    if text.startswith("structured:"):
        share = Fraction(text.removeprefix("structured:"))
        return ceil(share * rows * columns / pruned) <= columns
    if ":" in text:
        return columns % int(text.partition(":")[2]) == 0
    return floor(Fraction(text) * rows * columns) <= pruned * columns


@property_test(300)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    text=TEXTS,
    alpha=st.just("0") | SHARES,
)
@example(rows=10, columns=10, text="0.7", alpha="0.3")  # all that the other rows have
@example(rows=10, columns=10, text="0.71", alpha="0.3")
@example(rows=10, columns=3, text="structured:0.7", alpha="0.3")
@example(rows=1, columns=4, text="2:4", alpha="0.005")  # the only row stays dense
def test_a_shape_is_refused_where_pruning_cannot_be_done(
    rows: int, columns: int, text: str, alpha: str
) -> None:
    layer, pattern = random_layer(rows, columns, tokens=2 * columns), parse_pattern(text)
    statistics, options = layer.statistics(), {"outlier_fraction": float(alpha)}
    if possible(rows, columns, text, Fraction(alpha)):
        check_shape(rows, columns, pattern, float(alpha))
        for method in METHODS:
            result = prune_weight(
                layer.W, statistics, method, pattern, dtype=torch.float64, **options
            )
            assert int(result.mask.any(1).sum()) <= rows - ceil(Fraction(alpha) * rows)
        return
    with pytest.raises(PruningError) as refused:
        check_shape(rows, columns, pattern, float(alpha))
    for method in METHODS:
        with pytest.raises(PruningError) as same:
            prune_weight(layer.W, statistics, method, pattern, **options)
        assert str(same.value) == str(refused.value)


@pytest.mark.parametrize("alpha", [-0.1, 1.0, math.nan])
@pytest.mark.parametrize("text", ["0.5", "2:4", "structured:0.5"])
def test_an_outlier_fraction_out_of_range(text: str, alpha: float) -> None:
    with pytest.raises(PruningError, match=r"outlier_fraction .* must be in \[0, 1\)"):
        check_shape(8, 8, parse_pattern(text), alpha)
