"""Accumulation of the calibration statistics."""

import pytest
import torch

from thanos.pruning import InputStatistics, PruningError


def test_sums_over_tokens() -> None:
    statistics = InputStatistics(2)
    statistics.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert statistics.gram.tolist() == [[10, 14], [14, 20]]
    assert statistics.squared_norms.tolist() == [10, 20]
    assert statistics.tokens == 2
    statistics.update(torch.tensor([1.0, 0.0]))
    assert statistics.gram.tolist() == [[11, 14], [14, 20]]
    assert statistics.tokens == 3


def test_leading_dimensions_are_tokens() -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, parts = (InputStatistics(4, dtype=torch.float64) for _ in range(2))
    whole.update(x)
    for batch in x:
        parts.update(batch)
    assert whole.tokens == parts.tokens == 15
    assert torch.allclose(whole.gram, parts.gram, rtol=1e-14)
    assert torch.allclose(whole.gram, torch.einsum("ijk,ijl->kl", x, x), rtol=1e-14)


def test_diagonal_only() -> None:
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    full, diagonal = InputStatistics(4), InputStatistics(4, gram=False)
    full.update(x)
    diagonal.update(x)
    assert torch.allclose(full.squared_norms, diagonal.squared_norms)
    assert diagonal.squared_norms.shape == (4,)
    with pytest.raises(PruningError, match="Gram"):
        _ = diagonal.gram


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    """300² = 90,000 overflows float16, and 4,096 + 1 is 4,096 in bfloat16."""
    statistics = InputStatistics(1)
    statistics.update(torch.full((4, 1), 300, dtype=dtype))
    assert statistics.gram.item() == 4 * float(torch.tensor(300, dtype=dtype)) ** 2
    for _ in range(2):
        statistics.update(torch.ones(1, 1, dtype=dtype))
    assert statistics.gram.item() == 4 * float(torch.tensor(300, dtype=dtype)) ** 2 + 2
    assert statistics.gram.dtype == torch.float32


def test_wrong_width_is_refused() -> None:
    with pytest.raises(PruningError, match="5"):
        InputStatistics(4).update(torch.zeros(3, 5))


def test_more_calibration_after_a_layer_was_pruned_counts() -> None:
    """The factor that layers share is forgotten when the inputs change."""
    from thanos.pruning import prune_weight

    generator = torch.Generator().manual_seed(0)
    W, first, second = (torch.randn(8, 8, generator=generator) for _ in range(3))
    statistics = InputStatistics(8)
    statistics.update(first)
    prune_weight(W, statistics, "thanos", "0.5")
    statistics.update(second)
    fresh = InputStatistics(8)
    fresh.update(first)
    fresh.update(second)
    expected = prune_weight(W, fresh, "thanos", "0.5")
    assert torch.equal(prune_weight(W, statistics, "thanos", "0.5").weight, expected.weight)
