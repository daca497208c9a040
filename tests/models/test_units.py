"""Heads and neurons found by running a block, whatever the architecture calls its layers."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    Qwen3Config,
)

from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers, prune_model
from thanos.models.units import Wiring
from thanos.pruning import prune_weight

SHARED = {
    **{"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
}
GROUPED = {**SHARED, "intermediate_size": 40, "num_key_value_heads": 2}
MODELS = {
    "llama": (LlamaConfig(**GROUPED), {"self_attn.o_proj": 16, "mlp.down_proj": 1}),
    "nine heads, three of keys": (  # SmolLM2's
        LlamaConfig(
            **{**GROUPED, "hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3}
        ),
        {"self_attn.o_proj": 12, "mlp.down_proj": 1},
    ),
    "one head of keys": (
        LlamaConfig(**{**GROUPED, "num_key_value_heads": 1}),
        {"self_attn.o_proj": 8, "mlp.down_proj": 1},
    ),
    "opt": (
        OPTConfig(**SHARED, ffn_dim=40, word_embed_proj_dim=32),
        {"self_attn.out_proj": 8, "fc2": 1},
    ),
    "opt with norms behind": (
        OPTConfig(**SHARED, ffn_dim=40, word_embed_proj_dim=32, do_layer_norm_before=False),
        {"self_attn.out_proj": 8, "fc2": 1},
    ),
    "gpt2": (
        GPT2Config(
            **{"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 40},
            **{"bos_token_id": 0, "eos_token_id": 0},
        ),
        {"attn.c_proj": 8, "mlp.c_proj": 1},
    ),
    "neox": (  # queries, keys and values of each head side by side
        GPTNeoXConfig(**SHARED, intermediate_size=40),
        {"attention.dense": 8, "mlp.dense_4h_to_h": 1},
    ),
    "phi3": (Phi3Config(**GROUPED), {"self_attn.o_proj": 16, "mlp.down_proj": 1}),
    "qwen3": (Qwen3Config(**GROUPED, head_dim=8), {"self_attn.o_proj": 16, "mlp.down_proj": 1}),
    "falcon": (
        FalconConfig(**SHARED, ffn_hidden_size=40),
        {"self_attention.dense": 8, "mlp.dense_4h_to_h": 1},
    ),
}
TOKENS = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(1))


def built(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def prune(model, method="thanos", pattern="heads-neurons:0.4", **options):
    def prune_layer(weight, statistics, **given):
        return prune_weight(weight, statistics, method, pattern, **given)

    statistics = "none" if method == "magnitude" else "gram"
    return prune_model(model, TOKENS, prune_layer, statistics=statistics, units=True, **options)


def own(name):
    return name.split(".layers." if ".layers." in name else ".h.")[1].split(".", 1)[1]


@pytest.mark.parametrize("kind", MODELS)
def test_units_by_kind_of_model(kind):
    config, expected = MODELS[kind]
    model = built(config)
    blocks = find_blocks(model)

    units = Wiring(model, blocks, "cpu").units(1, blocks.modules[1], ())

    assert {own(name): found.width for name, found in units.items()} == expected


@pytest.mark.parametrize("kind", MODELS)
def test_what_makes_the_removed_units_is_zero_and_read_by_nobody(kind):
    config, expected = MODELS[kind]
    model = built(config)

    records = prune(model)

    blocks = find_blocks(model)
    layers = [
        {own(name): layer for name, layer in linear_layers(block, name).items()}
        for block, name in zip(blocks.modules, blocks.names, strict=True)
    ]
    rows = [{n: (a.weight == 0).all(1) for n, a in its.items()} for its in layers]
    for reader, unit in expected.items():
        gone = [(its[reader].weight == 0).all(0).view(-1, unit) for its in layers]
        counts = {int(each.all(1).sum()) for each in gone}
        assert counts == {round(0.4 * gone[0].shape[0])}  # the same in every block
        assert all(torch.equal(each.any(1), each.all(1)) for each in gone)
    made = [sum(int(r.sum()) for r in its.values()) for its in rows]
    assert len(set(made)) == 1
    assert made[0] > 0
    assert [record.details.get("rows_removed") for record in records] == [
        None if own(record.name) in expected else int(rows[record.block][own(record.name)].sum())
        for record in records
    ]
    with torch.inference_mode():
        before = model(TOKENS).logits
        generator = torch.Generator().manual_seed(0)
        for its, zero in zip(layers, rows, strict=True):
            for name, layer in its.items():
                noise = torch.randn(layer.shape, generator=generator)
                layer.write(torch.where(zero[name][:, None], noise, layer.weight))
        assert torch.equal(model(TOKENS).logits, before)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos", "admm"])
@pytest.mark.parametrize("order", ["block", "sublayer"])
def test_every_method(method, order):
    records = prune(built(MODELS["llama"][0]), method, order=order)
    assert {own(r.name): round(r.sparsity, 3) for r in records} == {
        **dict.fromkeys(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), 0.5),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), 0.4),
        "self_attn.o_proj": 0.5,
    }
    assert [own(record.name) for record in records[:7]] == [
        *(f"self_attn.{part}_proj" for part in "qkvo"),
        *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ]


def test_skipped_layers_stay_dense():
    model = built(MODELS["llama"][0])
    records = prune(model, skip=("self_attn.o_proj", "mlp.up_proj"))
    sparsity = {own(record.name): record.sparsity for record in records}
    assert not {"self_attn.o_proj", "mlp.up_proj"} & sparsity.keys()
    assert sparsity["self_attn.q_proj"] == 0
    assert sparsity["mlp.gate_proj"] == sparsity["mlp.down_proj"] == pytest.approx(0.4)


def test_heads_under_one_norm_are_refused_before_anything_is_pruned():
    model = built(Olmo2Config(**SHARED, intermediate_size=40))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"self_attn\.o_proj reads heads .* cannot be told apart"):
        prune(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    records = prune(model, skip=("self_attn.o_proj",))
    assert next(r.sparsity for r in records if "down_proj" in r.name) == pytest.approx(0.4)


def test_a_mixture_of_experts_is_refused():
    model = built(MixtralConfig(**GROUPED, num_local_experts=2))
    with pytest.raises(UserError, match="MixtralForCausalLM is a mixture of experts"):
        prune(model)
