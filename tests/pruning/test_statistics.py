"""Accumulation of the calibration statistics."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from thanos.pruning import InputStatistics, PruningError
from thanos.pruning.precision import widens_products
from thanos.pruning.statistics import _squares

# The products in place that torch does not count by itself, from the shapes.
IN_PLACE = {torch.ops.aten.addmm_: lambda c, a, b, **_: 2 * a[0] * a[1] * b[1]}


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


def whole_numbers(tokens: int, width: int) -> torch.Tensor:
    """Inputs whose products and sums are exact in any order and precision."""
    generator = torch.Generator().manual_seed(width)
    return torch.randint(-8, 9, (tokens, width), generator=generator).float()


@pytest.mark.parametrize("width", [1, 255, 256, 257, 320, 513, 700, 1024])
def test_halves_make_a_whole_whenever_it_is_read(width: int) -> None:
    x = whole_numbers(3 * 50, width)
    statistics = InputStatistics(width)
    for batch in x.split(50):
        statistics.update(batch)
        if len(batch) and statistics.tokens == 100:
            assert torch.equal(statistics.gram, x[:100].T @ x[:100])
    assert torch.equal(statistics.squared_norms, x.square().sum(0))
    assert torch.equal(statistics.gram, x.T @ x)


def test_hardly_more_than_half_of_the_products_is_computed() -> None:
    statistics, x = InputStatistics(2048), torch.ones(2, 2048)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        statistics.update(x)
    assert counter.get_total_flops() == pytest.approx((0.5 + 1 / 16) * 2 * 2 * 2048**2, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [3, 300])
def test_half_precision_is_multiplied_as_it_is_where_the_device_widens(
    dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a device stands in here: its product takes half precision and gives float32."""
    seen = []

    def mm(one: torch.Tensor, other: torch.Tensor, *, out_dtype: torch.dtype) -> torch.Tensor:
        seen.append((one.dtype, other.dtype))
        return one.to(out_dtype) @ other.to(out_dtype)

    x = whole_numbers(20, width)
    widens_products.cache_clear()
    monkeypatch.setattr(torch, "mm", mm)
    try:
        single, double = (InputStatistics(width, dtype=d) for d in (torch.float32, torch.float64))
        for statistics in (single, double):
            statistics.update(x.to(dtype))
    finally:
        widens_products.cache_clear()
    assert set(seen) == {(dtype, dtype)}
    assert len(seen) == 1 + len(list(_squares(0, width, 256)))  # the question, and none in float64
    assert torch.equal(single.gram, x.T @ x)
    assert torch.equal(double.gram.float(), x.T @ x)
    assert double.gram.dtype == torch.float64


def test_the_cpu_widens_nothing() -> None:
    assert not widens_products("cpu", torch.bfloat16)


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
