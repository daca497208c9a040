"""Channels of a real model's layers change places, and the model stays what it was."""

import copy

import pytest
import torch
from torch import nn
from transformers import Gemma3nTextConfig

from thanos.models import (
    FinishedBlocks,
    StreamedBlocks,
    copy_checkpoint,
    find_blocks,
    linear_layers,
    load_model,
    prune_model,
)
from thanos.models.channels import Channels, holds
from thanos.models.linear import LinearLayer
from thanos.models.reconstruction import Reconstruction
from thanos.models.units import Wiring
from thanos.pruning import PruningResult, prune_weight
from thanos.pruning.permutation import column_order

# Of every family the layers whose channels can change places: pools, channels, copies of each.
FREE = {
    "llama-tied-biased": {"self_attn.o_proj": (2, 8, 2), "mlp.down_proj": (1, 48, 1)},
    "gpt2": {"attn.c_proj": (4, 8, 1), "mlp.c_proj": (1, 48, 1)},
    "gpt-neox": {"attention.dense": (4, 8, 1), "mlp.dense_4h_to_h": (1, 48, 1)},
    "phi3": {"self_attn.o_proj": (2, 8, 2), "mlp.down_proj": (1, 48, 1)},
    "falcon-7b": {"self_attention.dense": (1, 8, 4), "mlp.dense_4h_to_h": (1, 48, 1)},
}


def own(name: str) -> str:
    return name.split(".layers." if ".layers." in name else ".h.")[1].split(".", 1)[1]


def reorder(weight, _, channels=None):
    """Remove nothing, and put channels that can move in a random order."""
    if channels is None:
        return PruningResult(weight, weight == 0, 0.0, None, None, {})
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(channels.shape[1], generator=generator) for _ in channels])
    moved = weight[:, column_order(channels, order, weight.shape[1])]
    return PruningResult(moved, moved == 0, 0.0, None, None, {"moved": True}, order)


def two_layers(scale):
    """Eight neurons between two layers, each scaled by a number of its own."""
    torch.manual_seed(0)
    up, down, x = nn.Linear(4, 8), nn.Linear(8, 4), torch.randn(1, 3, 4)
    layers = {"up": LinearLayer("up", up), "down": LinearLayer("down", down)}
    return layers, lambda: [down(scale * up(x).relu())]


def thanos(weight, statistics, **given):
    return prune_weight(weight, statistics, "thanos", "2:4", **given)


def test_a_model_whose_channels_moved_computes_what_it_did(any_model, windows) -> None:
    with torch.inference_mode():
        expected = any_model(windows).logits
    before = copy.deepcopy(any_model.state_dict())

    records = prune_model(any_model, windows, reorder, statistics="none", permutation=True)

    moved = {own(record.name) for record in records if record.details}
    mixture = any_model.config.model_type in ("mixtral", "qwen3_moe")
    assert ("mlp.experts.0.down_proj" in moved) == mixture
    assert len(moved) >= 2
    after = any_model.state_dict()
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())
    with torch.inference_mode():
        # Sums of the same numbers in another order; logits of a few units.
        torch.testing.assert_close(any_model(windows).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FREE)
def test_channels_by_family(tiny, family) -> None:
    model = tiny(family)
    blocks = find_blocks(model)
    block, name = blocks.modules[0], blocks.names[0]
    found = Wiring(model, blocks, "cpu").channels(0, block, linear_layers(block, name))
    assert {own(n): tuple(c.columns.shape) for n, c in found.items()} == FREE[family]


def test_a_layer_that_is_left_as_it_is_keeps_its_rows(tiny, windows) -> None:
    """What would follow the channels of the layer that reads it is not to be touched."""
    model = tiny("llama-tied-biased")
    block = find_blocks(model).modules[0]
    before = {
        part: block.mlp.get_submodule(part).weight.clone() for part in ("up_proj", "down_proj")
    }
    skip = ("up_proj",)
    records = prune_model(model, windows, reorder, statistics="none", skip=skip, permutation=True)
    assert {own(r.name) for r in records if r.details} == {"self_attn.o_proj"}
    for part, weight in before.items():
        assert torch.equal(block.mlp.get_submodule(part).weight, weight)


def test_a_later_block_that_reads_the_values_is_noticed(custom) -> None:
    """Gemma 3n's last blocks attend to keys and values of earlier ones, whose order then counts."""
    config = Gemma3nTextConfig(
        **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
        **{"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "laurel_rank": 4},
        **{"num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4},
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    model = custom(config)
    tokens = torch.randint(64, (2, 10), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(tokens, use_cache=False).logits

    records = prune_model(
        model,
        tokens,
        reorder,
        statistics="none",
        permutation=True,
        skip=("altup.modality_router",),
    )

    free = {(r.block, own(r.name)) for r in records if r.details}
    assert {(block, "mlp.down_proj") for block in range(4)} <= free
    assert not {(block, "self_attn.o_proj") for block in range(4)} & free
    with torch.inference_mode():
        given = model(tokens, use_cache=False).logits
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_a_channel_that_has_something_of_its_own_is_noticed() -> None:
    layers, run = two_layers(scale=torch.ones(8))
    channels = Channels(torch.arange(8).view(1, 8, 1), {"up": torch.arange(8).view(1, 8, 1)})
    before = [layer.weight.clone() for layer in layers.values()]
    assert holds(run, layers, "down", channels)
    assert all(torch.equal(a.weight, w) for a, w in zip(layers.values(), before, strict=True))
    layers, run = two_layers(scale=torch.linspace(1, 1.1, 8))
    assert not holds(run, layers, "down", channels)


@pytest.mark.parametrize("order", ["block", "sublayer"])
@pytest.mark.parametrize("family", ["llama-tied-biased", "gpt2", "mixtral"])
def test_pruned_it_is_the_model_whose_channels_were_moved_before(
    tiny, windows, family, order
) -> None:
    """Order of pruning, statistics, biases and experts: nothing is left in the old order."""
    skip = ("experts.*",) if family == "mixtral" else ()  # they see too few tokens
    options = {"statistics": "gram", "order": order, "skip": skip}
    model = tiny(family)
    orders = {}

    def noted(weight, statistics, **given):
        result = thanos(weight, statistics, **given)
        if result.channel_order is not None:
            orders[len(orders)] = result.channel_order
        return result

    records = prune_model(model, windows, noted, permutation=True, **options)

    other, known = tiny(family), dict(orders)

    def before(weight, _, channels=None):
        if channels is None:
            return PruningResult(weight, weight == 0, 0.0, None, None, {})
        chosen = known.pop(min(known))
        moved = weight[:, column_order(channels, chosen, weight.shape[1])]
        return PruningResult(moved, moved == 0, 0.0, None, None, {}, chosen)

    prune_model(other, windows, before, statistics="none", permutation=True, skip=skip)
    again = prune_model(other, windows, thanos, **options)
    assert orders
    assert [r.sparsity for r in records] == [r.sparsity for r in again]
    for (name, tensor), value in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(tensor, value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("permutation", [False, True])
def test_only_biases_whose_rows_moved_are_written(tiny, windows, tmp_path, permutation) -> None:
    """Others stay as they are stored: here in more digits than the model computes with."""
    model = tiny("llama-tied-biased").to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = torch.rand(parameter.shape)
    model.save_pretrained(tmp_path / "model")
    finished = FinishedBlocks(tmp_path / "work", {})
    source = StreamedBlocks(tmp_path / "model", finished=finished)
    prune_model(source, windows, thanos, statistics="gram", permutation=permutation)
    written = {own(n).removesuffix(".bias") for n in finished.tensors if n.endswith("bias")}
    makers = {"self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"}
    assert written == (makers if permutation else set())


def test_streamed_killed_and_written_it_is_the_same(tiny, windows, tmp_path) -> None:
    """Rows move in layers that were pruned before, and biases with them: all of it is kept."""
    tiny("llama-tied-biased").save_pretrained(tmp_path / "model")
    options = {
        **{"statistics": "gram", "permutation": True, "correction": True},
        "reconstruction": Reconstruction(4, 1e-3, 0, torch.float32),
    }

    def corrected(weight, statistics, **given):
        return thanos(weight, statistics, correction=0.5, **given)

    loaded = load_model(tmp_path / "model")
    prune_model(loaded, windows, corrected, batch_size=2, **options)

    class KilledError(Exception):
        pass

    class Killed(StreamedBlocks):
        def take(self, index, device):
            if index == 2:
                raise KilledError
            return super().take(index, device)

    finished = FinishedBlocks(tmp_path / "work", {})
    source = Killed(tmp_path / "model", finished=finished)
    with pytest.raises(KilledError):
        prune_model(source, windows, corrected, batch_size=2, **options)
    finished = FinishedBlocks(tmp_path / "work", {})
    assert len(finished) == 2
    source = StreamedBlocks(tmp_path / "model", finished=finished)
    prune_model(source, windows, corrected, batch_size=2, done=tuple(finished.records), **options)

    (tmp_path / "pruned").mkdir()
    copy_checkpoint(tmp_path / "model", finished.tensors, tmp_path / "pruned")
    opened = load_model(tmp_path / "pruned")
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor), name
