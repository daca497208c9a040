"""The exact choice of the smallest scores on layers large enough for its shortcuts."""

from collections.abc import Iterator

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from layers import property_test

from thanos.pruning import prune_weight, selection


@pytest.fixture(scope="module", autouse=True)
def _tiny_samples() -> Iterator[None]:
    """Shortcuts begin at 64 scores instead of 65,536."""
    patch = pytest.MonkeyPatch()
    patch.setattr(selection, "_SAMPLE", 16)
    patch.setattr(selection, "_SLICE", 40)
    yield
    patch.undo()


@property_test(150)
@given(
    c=st.integers(1, 30),
    b=st.integers(1, 30),
    share=st.floats(0, 1),
    distinct=st.sampled_from((1, 2, 3, 10, 1000)),
    zeros=st.sampled_from((0, 0.1, 0.9)),
    seed=st.integers(0, 999),
)
def test_same_choice_as_a_stable_sort(
    c: int, b: int, share: float, distinct: int, zeros: float, seed: int
) -> None:
    """From all equal to all different, and with columns that are zero."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randint(-distinct, distinct + 1, (c, b), generator=generator).float()
    scale = 2.0 ** torch.randint(-2, 3, (b,), generator=generator)
    W[:, torch.rand(b, generator=generator) < zeros] = 0
    k = int(share * c * b)
    chosen = selection.choose_smallest(W, scale, k).mask(W, scale)
    assert torch.equal(chosen, oracle.smallest(W.abs() * scale, k))


@property_test(150)
@given(
    c=st.integers(6, 30),
    b=st.integers(6, 30),
    share=st.floats(0, 1),
    distinct=st.sampled_from((1, 3, 10, 1000)),
    guess=st.one_of(st.floats(0.9, 1.1), st.sampled_from((-1.0, 0.0, 0.5, 2.0, float("inf")))),
    drift=st.sampled_from((0.0, 1e-4, 3e-3, 1e-2)),
    seed=st.integers(0, 999),
)
def test_an_expected_threshold_changes_nothing(
    c: int, b: int, share: float, distinct: int, guess: float, drift: float, seed: int
) -> None:
    """Right, nearly right or wrong: it only decides where is looked first."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randint(-distinct, distinct + 1, (c, b), generator=generator).float()
    scale = 2.0 ** torch.randint(-2, 3, (b,), generator=generator)
    k = int(share * c * b)
    right = selection.choose_smallest(W, scale, k)
    expected = selection.Choice(right.threshold * guess, takes_ties=True, drift=drift)
    chosen = selection.choose_smallest(W, scale, k, expected).mask(W, scale)
    assert torch.equal(chosen, oracle.smallest(W.abs() * scale, k))


def test_a_close_guess_spares_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    W, scale = torch.randn(100, 100, generator=generator), torch.ones(100)
    first = selection.choose_smallest(W, scale, 5000)
    monkeypatch.setattr(selection, "_sample", None)  # not callable
    second = selection.choose_smallest(W * 1.001, scale, 5000, expected=first)
    assert second.threshold == pytest.approx(first.threshold * 1.001)
    assert second.drift == pytest.approx(0.001, rel=1e-2)


@pytest.mark.parametrize("p", ["0.001", "0.3", "0.5", "0.999"])
def test_skewed_scores(p: str) -> None:
    """Rows in ascending order, a few huge columns: a sample that is not spread would miss them."""
    W = torch.arange(1.0, 4001).view(40, 100)
    W[:, ::10] *= 1e6
    result = prune_weight(W, None, "magnitude", p)
    expected = oracle.prune(W, torch.eye(100), "magnitude", p)
    assert torch.equal(result.mask, expected.mask)
