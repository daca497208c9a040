import logging

import pytest
import torch
from torch import nn
from transformers import (
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
)

from thanos.errors import UserError
from thanos.models.blocks import check_layers, find_blocks, linear_layers
from thanos.models.linear import LinearLayer

MOE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
}


@pytest.mark.parametrize(
    ("family", "name", "layers"),
    [
        ("opt", "model.decoder.layers", "k_proj v_proj q_proj out_proj fc1 fc2"),
        ("llama", "model.layers", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("phi3", "model.layers", "o_proj qkv_proj gate_up_proj down_proj"),
        ("gpt-neox", "gpt_neox.layers", "query_key_value dense dense_h_to_4h dense_4h_to_h"),
        ("gpt2", "transformer.h", "c_attn c_proj c_fc c_proj"),
        ("falcon-7b", "transformer.h", "query_key_value dense dense_h_to_4h dense_4h_to_h"),
    ],
)
def test_blocks_and_their_linear_layers(tiny, family, name, layers):
    blocks = find_blocks(tiny(family))

    found = linear_layers(blocks.modules[1], blocks.name_of(1))

    assert (blocks.name, len(blocks)) == (name, 3)
    assert sorted(layer.rpartition(".")[2] for layer in found) == sorted(layers.split())
    assert all(layer.startswith(f"{name}.1.") for layer in found)


def test_every_matrix_inside_the_blocks_of_a_family_is_a_layer(any_dense_model):
    blocks = find_blocks(any_dense_model)
    check_layers(blocks)

    layers = linear_layers(blocks.modules[0], blocks.name_of(0))

    matrices = {n for n, p in any_dense_model.named_parameters() if p.dim() > 1 and "norm" not in n}
    in_first_block = {n for n in matrices if n.startswith(blocks.name_of(0) + ".")}
    assert {f"{name}.weight" for name in layers} == in_first_block


def test_a_vision_tower_is_not_the_decoder(tiny):
    assert find_blocks(tiny("gemma3-vision")).name == "model.language_model.layers"


def test_layer_names_lead_to_the_modules(any_dense_model):
    blocks = find_blocks(any_dense_model)

    for name, layer in linear_layers(blocks.modules[2], blocks.name_of(2)).items():
        assert any_dense_model.get_submodule(name) is layer.module


def test_conv1d_is_seen_as_outputs_by_inputs(tiny):
    model = tiny("gpt2")
    blocks = find_blocks(model)
    fc = linear_layers(blocks.modules[0], blocks.name_of(0))["transformer.h.0.mlp.c_fc"]
    x = torch.randn(4, 32)

    assert fc.shape == fc.weight.shape == (48, 32)
    assert torch.allclose(fc.module(x), x @ fc.weight.T + fc.module.bias, atol=1e-6)

    new = torch.randn(48, 32)
    fc.write(new)
    assert torch.equal(fc.weight, new)
    assert torch.equal(fc.module.weight, new.T)


def test_writing_keeps_parameter_and_dtype():
    module = nn.Linear(4, 3).to(torch.bfloat16)
    parameter = module.weight

    LinearLayer("layer", module).write(torch.ones(3, 4))

    assert module.weight is parameter
    assert parameter.dtype == torch.bfloat16
    assert torch.equal(parameter.detach().float(), torch.ones(3, 4))


@pytest.mark.parametrize(
    "config",
    [
        GptOssConfig(**MOE, num_local_experts=2, head_dim=8),  # interleaved, transposed, biases
        Llama4TextConfig(**MOE, num_local_experts=2, intermediate_size_mlp=16, head_dim=8),
    ],
    ids=["gpt-oss", "llama4"],
)
def test_experts_in_another_layout_are_refused_by_name(custom, config):
    blocks = find_blocks(custom(config))

    with pytest.raises(UserError, match=r"model\.layers\.\d\.\S*experts .*mixture of experts is"):
        check_layers(blocks, skip=("*mlp*", "*feed_forward*"))


@pytest.mark.parametrize("every", [1, 2])
def test_shared_and_sparse_experts_and_their_routers(custom, every, caplog):
    model = custom(
        Qwen2MoeConfig(
            **MOE,
            num_experts=2,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=24,
            decoder_sparse_step=every,
        )
    )
    blocks = find_blocks(model)
    with caplog.at_level(logging.INFO, logger="thanos"):
        check_layers(blocks)
    assert "routers, gates and convolutions by channel stay dense: mlp.gate" in caplog.text

    layers = linear_layers(blocks.modules[1], blocks.name_of(1))

    mlp = {name.removeprefix("model.layers.1.mlp.") for name in layers if ".mlp." in name}
    assert mlp == {
        *(f"experts.{e}.{part}_proj" for e in range(2) for part in ("gate", "up", "down")),
        *(f"shared_expert.{part}_proj" for part in ("gate", "up", "down")),
    }
    assert (
        "model.layers.0.mlp.gate_proj" in linear_layers(blocks.modules[0], "model.layers.0")
    ) == (every == 2)


def test_a_list_of_feed_forward_networks_is_a_mixture_of_experts(tiny):
    blocks = find_blocks(tiny("llama"))
    blocks.modules[1].branches = nn.ModuleList(
        nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(2)
    )

    with pytest.raises(UserError, match=r"model\.layers\.1\.branches .*mixture of experts"):
        check_layers(blocks)


def test_a_matrix_that_is_no_linear_layer_must_be_named_in_skip(tiny):
    blocks = find_blocks(tiny("llama"))
    blocks.modules[1].adapter = nn.Embedding(5, 32)

    with pytest.raises(UserError, match=r"layers\.1\.adapter \(Embedding\) .*model\.skip="):
        check_layers(blocks)
    check_layers(blocks, skip=("adapter",))


def test_convolutions_of_a_state_space_model_are_not_passed_over(custom):
    blocks = find_blocks(custom(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1)))

    with pytest.raises(UserError, match=r"backbone\.layers\.0\.mixer .*model\.skip=\[mixer\]"):
        check_layers(blocks)
    check_layers(blocks, skip=("mixer",))


def test_quantised_weights_are_refused(tiny):
    blocks = find_blocks(tiny("llama"))
    projection = blocks.modules[0].self_attn.o_proj
    projection.weight = nn.Parameter(projection.weight.to(torch.int8), requires_grad=False)

    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.o_proj .*quantised"):
        check_layers(blocks)


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("mlp.down_proj", 6),
        ("model.layers.0.self_attn.q_proj", 6),
        ("*.mlp.*", 4),
        ("0.*", 0),
    ],
)
def test_skip_names_layers_to_leave_out(tiny, pattern, left):
    blocks = find_blocks(tiny("llama"))

    check_layers(blocks, skip=(pattern,))

    assert len(linear_layers(blocks.modules[0], blocks.name_of(0), skip=(pattern,))) == left


def test_a_skip_pattern_that_matches_nothing_is_an_error(tiny):
    blocks = find_blocks(tiny("llama"))

    with pytest.raises(UserError, match=r"skip: 'o_prj' matches no layer .*q_proj"):
        check_layers(blocks, skip=("o_prj",))


def test_two_lists_of_blocks_are_ambiguous(tiny):
    model = tiny("llama")
    model.model.more = nn.ModuleList(nn.Sequential(nn.Linear(32, 32)) for _ in range(2))

    with pytest.raises(UserError, match=r"several lists of blocks: model\.layers, model\.more"):
        find_blocks(model)


def test_a_model_without_blocks_is_an_error():
    class Bare(PreTrainedModel):
        config_class = LlamaConfig

        def __init__(self):
            super().__init__(LlamaConfig())
            self.embed_tokens = nn.Embedding(4, 4)

    with pytest.raises(UserError, match="Bare has no list of decoder blocks"):
        find_blocks(Bare())
