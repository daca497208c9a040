"""Masks from elsewhere: what was zero stays zero, whatever sparsity each layer has."""

import pytest
import torch

from thanos import prune
from thanos.errors import UserError
from thanos.models import BlocksInMemory, linear_layers, prune_model
from thanos.models.given_masks import own_patterns
from thanos.pruning import SemiStructured, Structured, Unstructured, prune_weight


@pytest.fixture
def windows():
    return torch.randint(0, 60, (4, 16), generator=torch.Generator().manual_seed(1))


def layers_of(model):
    blocks = BlocksInMemory(model).blocks
    return {
        name: layer
        for index, block in enumerate(blocks.modules)
        for name, layer in linear_layers(block, blocks.name_of(index)).items()
    }


def zeros_in(model):
    return {name: layer.weight == 0 for name, layer in layers_of(model).items()}


def test_a_mask_of_another_run(tiny, windows):
    other = tiny("llama")
    prune_model(other, windows, lambda w, s: prune_weight(w, s, "wanda", "2:4"), statistics="gram")
    zeros = zeros_in(other)
    model = tiny("llama")

    def thanos(weight, statistics, given_mask):
        return prune_weight(weight, statistics, "thanos", "2:4", given_mask=given_mask)

    prune_model(model, windows, thanos, statistics="gram", masks=BlocksInMemory(other))

    for name, layer in layers_of(model).items():
        assert torch.equal(layer.weight == 0, zeros[name])
        assert not torch.equal(layer.weight, layers_of(other)[name].weight)


ALLOCATED = [
    (0.5, {"method": "thanos", "allocation": "error"}),
    (0.5, {"method": "wanda", "allocation": "owl", "allocation_unit": "layer"}),
    ("4:8", {"method": "thanos", "allocation": "error", "allocation_mixed": True}),
    ("4:8", {"method": "magnitude", "allocation": "owl", "allocation_mixed": True}),
]


@pytest.mark.parametrize(("pattern", "options"), ALLOCATED)
@pytest.mark.parametrize("update", ["none", "sequential", "joint", "alternating"])
def test_the_mask_of_an_allocated_run(tiny, windows, tmp_path, pattern, options, update):
    other = tiny("llama")
    prune(other, windows, pattern=pattern, allocation_spread=0.3, **options)
    other.save_pretrained(tmp_path)
    zeros = zeros_in(other)
    assert len({float(mask.float().mean()) for mask in zeros.values()}) > 1
    model = tiny("llama")

    prune(model, windows, method="wanda", update=update, pattern=pattern, mask=str(tmp_path))

    assert all(torch.equal(zeros[name], mask) for name, mask in zeros_in(model).items())


def with_shares(model, shares):
    """Remove of each layer in turn another share of every group of eight."""
    for layer, share in zip(layers_of(model).values(), shares, strict=True):
        weight = layer.weight.clone()
        weight.unflatten(1, (-1, 8))[:, :, : round(8 * share)] = 0
        layer.write(weight)
    return BlocksInMemory(model)


def test_patterns_are_those_of_each_layer_where_they_differ(tiny):
    count = len(layers_of(tiny("llama")))
    equal = with_shares(tiny("llama"), [0.5] * count)
    for pattern in (Unstructured(0.5), SemiStructured(4, 8), Structured(0.5)):
        assert own_patterns(equal, pattern, ()) is None
    shares = [0.25, 0.75] + [0.5] * (count - 2)  # the first two have one size
    unequal = with_shares(tiny("llama"), shares)
    found = own_patterns(unequal, Unstructured(0.5), ())
    assert [pattern.p for pattern in found.values()] == shares
    found = own_patterns(unequal, SemiStructured(4, 8), ())
    assert [pattern.n for pattern in found.values()] == [8 - round(8 * p) for p in shares]
    assert own_patterns(unequal, Structured(0.5), ()) is None  # each layer is checked by itself
    some = own_patterns(unequal, Unstructured(0.5), ["model.layers.0.self_attn.*"])
    assert some is None  # all that is left has it


def test_a_layer_that_is_dense_in_it_stays_so_if_others_make_up_for_it(tiny, tmp_path):
    count = len(layers_of(tiny("opt")))
    other = with_shares(tiny("opt"), [1.0, 0.0, *[0.5] * (count - 2)]).model
    other.save_pretrained(tmp_path)
    for pattern in ("0.5", "4:8"):
        model = tiny("opt")
        prune(model, method="magnitude", pattern=pattern, mask=str(tmp_path))
        assert [float(mask.float().mean()) for mask in zeros_in(model).values()][:3] == [1, 0, 0.5]


@pytest.mark.parametrize(
    ("share", "pattern", "message"),  # of the first of three blocks
    [
        (
            0.25,
            "0.5",
            r"removes 0\.2500 .* pattern unstructured:0\.5; .*together lose 0\.4167",
        ),
        (0.25, "4:8", r"removes 0\.2500 .* pattern 4:8; .*together lose 0\.4167"),
        (
            0.5,
            "0.6",
            r"removes 0\.5000 .* pattern unstructured:0\.6; .*together lose 0\.5000",
        ),
        (0.0, "0.5", r"removes nothing; name the layer in skip.*together lose 0\.3333"),
    ],
)
def test_masks_of_other_patterns_are_refused_before_any_layer(
    tiny, tmp_path, share, pattern, message
):
    count = len(layers_of(tiny("opt")))
    shares = [share] * (count // 3) + [0.5] * (2 * count // 3)
    with_shares(tiny("opt"), shares).model.save_pretrained(tmp_path)
    model = tiny("opt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = r"^model\.decoder\.layers\.0\.self_attn\.k_proj: the mask "
    with pytest.raises(UserError, match=first + message):
        prune(model, method="magnitude", pattern=pattern, mask=str(tmp_path))
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
