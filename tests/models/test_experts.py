"""Every expert of a mixture is calibrated on the tokens that are routed to it."""

import logging

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from thanos.errors import UserError
from thanos.models import StreamedBlocks, find_blocks, linear_layers, load_model, prune_model
from thanos.models.activations import gather_statistics
from thanos.models.replay import record
from thanos.pruning import prune_weight

EXPERTS = "model.layers.0.mlp.experts"
PARTS = ("gate", "up", "down")


def halve(weight, inputs):
    return prune_weight(weight, None, method="magnitude", pattern="0.5")


@torch.no_grad()
def gather(model, windows, batch_size=2):
    blocks = find_blocks(model)
    recording = record(model, blocks, windows, batch_size)
    layers = linear_layers(blocks.modules[0], blocks.name_of(0))
    passes = recording.passes(0, blocks.modules[0], "cpu")
    return gather_statistics(layers, passes, gram=True, dtype=torch.float64, device="cpu")


@torch.no_grad()
def test_gram_matrices_are_those_of_the_routed_tokens(any_mixture, windows):
    mlp = any_mixture.model.layers[0].mlp
    seen = []
    mlp.experts.register_forward_pre_hook(lambda module, args: seen.append(args))
    any_mixture(input_ids=windows, use_cache=False)
    ((hidden, chosen, _),) = seen

    statistics = gather(any_mixture, windows)

    count, both, _ = mlp.experts.gate_up_proj.shape
    assert sum(statistics[f"{EXPERTS}.{e}.up_proj"].tokens for e in range(count)) == chosen.numel()
    for expert in range(count):
        x = hidden[(chosen == expert).any(1)]
        gate, up = mlp.experts.gate_up_proj[expert].split(both // 2)
        inner = F.silu(x @ gate.T) * (x @ up.T)
        for part, inputs in zip(PARTS, (x, x, inner), strict=True):
            found = statistics[f"{EXPERTS}.{expert}.{part}_proj"]
            G = inputs.double().T @ inputs.double()
            assert found.tokens == len(inputs)
            assert torch.allclose(found.gram, G, rtol=1e-4, atol=1e-4 * max(1, float(G.max())))
        gate_of = statistics[f"{EXPERTS}.{expert}.gate_proj"]
        assert gate_of is statistics[f"{EXPERTS}.{expert}.up_proj"]


@pytest.fixture
def lonely(tiny):
    """A mixture whose expert 2 is chosen by no token."""
    model = tiny("mixtral")
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(banish)
    return model


def banish(module, args, output):
    """Route everything that goes to expert 2 to experts 0 and 1."""
    logits, _, _ = output
    weights, chosen = torch.softmax(logits[:, :2].float(), -1).topk(2)
    return logits, weights, chosen


def test_an_expert_without_enough_tokens_is_an_error_that_names_it(lonely, windows):
    with pytest.raises(
        UserError,
        match=rf"^{EXPERTS}\.2\.gate_proj saw 0 tokens, fewer than its 32 columns; .*rare_experts",
    ):
        prune_model(lonely, windows, halve, statistics="gram")


def test_or_is_pruned_without_data_and_reported_if_that_is_wanted(lonely, windows, caplog):
    given = {}

    def prune(weight, inputs):
        given[len(given)] = inputs
        return prune_weight(weight, inputs, method="wanda", pattern="0.5")

    with caplog.at_level(logging.WARNING, logger="thanos"):
        records = prune_model(lonely, windows, prune, statistics="gram", data_free=halve)

    free = [record for record in records if record.details.get("data_free")]
    alone = {f"model.layers.{i}.mlp.experts.2.{p}_proj" for i in range(3) for p in PARTS}
    # All fifty tokens go to both other experts, whose widest matrix has 48 columns.
    assert {record.name for record in free} == alone
    assert {record.details["tokens"] for record in free} == {0}
    assert {record.relative_error for record in free} == {None}
    assert all(name in caplog.text for name in alone)
    assert len(given) == len(records) - len(free)
    assert {record.sparsity for record in records} == {0.5}


def test_pruning_touches_no_router(any_mixture, windows):
    routers = {n: p.clone() for n, p in any_mixture.named_parameters() if n.endswith("gate.weight")}
    assert len(routers) == 3

    prune_model(any_mixture, windows, halve, statistics="none")

    for name, before in routers.items():
        assert torch.equal(any_mixture.get_parameter(name), before)


def test_skip_names_single_experts(any_mixture):
    blocks = find_blocks(any_mixture)

    layers = linear_layers(blocks.modules[0], blocks.name_of(0), skip=("experts.1.*",))

    assert not [name for name in layers if ".experts.1." in name]
    assert f"{EXPERTS}.0.up_proj" in layers


def test_checkpoints_keep_one_tensor_for_every_matrix_of_an_expert(any_mixture, tmp_path):
    any_mixture.save_pretrained(tmp_path)

    source = StreamedBlocks(tmp_path)
    block = source.take(1, "cpu")

    pieces = source._stored["model.layers.1.mlp.experts.gate_up_proj"]
    assert len(pieces) == 2 * len(block.mlp.experts.gate_up_proj)
    opened = load_model(tmp_path).model.layers[1]
    for name, value in opened.named_parameters():
        assert torch.equal(block.get_parameter(name), value), name
