import pytest
import torch
from torch import nn

from thanos.accelerator import has_semi_structured_kernels
from thanos.compression.semi_structured import (
    is_semi_structured,
    is_two_of_four,
    use_semi_structured,
)
from thanos.pruning import prune_weight


def test_two_of_four():
    assert is_two_of_four(torch.tensor([[1.0, 0, 2, 0, 0, 0, 3, 4]]))
    assert is_two_of_four(torch.zeros(2, 4))
    assert not is_two_of_four(torch.tensor([[1.0, 0, 0, 2, 3, 4, 5, 0]]))
    assert not is_two_of_four(torch.tensor([[1.0, 0, 0, 2, 0, 0]]))  # no whole groups


def test_no_kernels_on_a_cpu():
    assert not has_semi_structured_kernels(torch.device("cpu"))


def test_single_precision_and_odd_sizes_stay_as_they_are():
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 20).half())
    with torch.no_grad():
        for layer in model:
            layer.weight.zero_()

    assert use_semi_structured(model) == []


def test_same_products_on_an_accelerator(accelerator):
    if not has_semi_structured_kernels(accelerator):
        pytest.skip(f"{accelerator} has no kernels for 2:4 weights")
    torch.manual_seed(0)
    layer = nn.Linear(256, 128).half().to(accelerator)
    with torch.no_grad():
        layer.weight.copy_(prune_weight(layer.weight, None, "magnitude", "2:4").weight)
    x = torch.randn(2, 7, 256, dtype=torch.float16, device=accelerator)
    expected = layer(x)

    changed = use_semi_structured(nn.Sequential(layer))

    assert changed == ["0"]
    assert is_semi_structured(layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=1e-2, atol=1e-2)
