"""Layers that cannot take what is asked: known before the first block, with the way out."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BambaConfig,
    BertConfig,
    Gemma3nTextConfig,
    Qwen2MoeConfig,
)

from thanos.errors import UserError
from thanos.evaluation.quantization import quantize_model
from thanos.models import load_model
from thanos.stages.run import main

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": None,
}
CONFIGS = {
    "gates": lambda: Qwen2MoeConfig(
        **SIZES,
        intermediate_size=48,
        num_experts=2,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "altup": lambda: Gemma3nTextConfig(
        **{**SIZES, "pad_token_id": 0},
        head_dim=8,
        vocab_size_per_layer_input=256,
        hidden_size_per_layer_input=8,
        laurel_rank=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        intermediate_size=[48, 48, 48, 46],  # the last one is no multiple of 4
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "hybrid": lambda: BambaConfig(
        **SIZES,
        intermediate_size=48,
        attn_layer_indices=[1, 3],
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_chunk_size=8,
        mamba_n_groups=1,
    ),
    "encoder": lambda: BertConfig(
        **{**SIZES, "pad_token_id": 0}, intermediate_size=48, is_decoder=False
    ),
}


@pytest.fixture
def run(command, model_folder, tmp_path):
    """`run(kind, *overrides)` prunes and evaluates such a model; returns the record of pruning."""

    def of(kind, *overrides):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(CONFIGS[kind]()).save_pretrained(model_folder)
        main(command("method=thanos", "calibration.windows=40", *overrides))
        return json.loads((tmp_path / "out" / "pruning.json").read_text())

    return of


def advised(error):
    return str(error.value).partition("model.skip=[")[2].partition("]")[0]


def test_a_gate_of_one_row_stays_dense(run, model_folder, tmp_path, caplog):
    with caplog.at_level("INFO"):
        record = run("gates", "pattern=0.5", "outlier_fraction=0.1")

    assert "stay dense: mlp.gate, mlp.shared_expert_gate" in caplog.text
    assert not [row for row in record["layers"] if "shared_expert_gate" in row["layer"]]
    pruned = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    dense = load_file(model_folder / "model.safetensors")
    gates = [name for name in dense if "shared_expert_gate" in name]
    assert len(gates) == 4
    assert all(torch.equal(pruned[name], dense[name]) for name in gates)


def test_layers_that_run_twice_and_widths_that_do_not_fit(run, tmp_path):
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.down_proj: .*multiple of 4.*46") as late:
        run("altup", "pattern=2:4")
    assert advised(late) == "layers.3.mlp.down_proj"

    with pytest.raises(UserError, match=r"altup\.modality_router runs more than once") as twice:
        run("altup", "pattern=2:4", f"model.skip=[{advised(late)}]")
    assert advised(twice) == "layers.3.mlp.down_proj,altup.modality_router"
    assert not list(tmp_path.rglob("block-*"))  # nothing was pruned to be thrown away

    record = run("altup", "pattern=2:4", f"model.skip=[{advised(twice)}]")

    assert {row["block"] for row in record["layers"]} == {0, 1, 2, 3}
    assert all(row["sparsity"] >= 0.5 for row in record["layers"])
    assert not [row for row in record["layers"] if "3.mlp.down_proj" in row["layer"]]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_hybrid_model_is_quantised_but_for_what_is_skipped(run, model_folder, tmp_path, kind):
    run("hybrid", "pattern=0.5", "model.skip=[out_proj]", f"evaluation.quantization={kind}")

    assert (tmp_path / "out" / "metrics.json").is_file()
    model = load_model(tmp_path / "out" / "checkpoint")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_model(model, kind, ("out_proj",))
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert {n.rpartition("mamba.")[2] for n in changed if "mamba" in n} == {"in_proj.weight"}


def test_what_is_skipped_is_not_rounded_in_the_dense_model_either(command, tmp_path):
    def loss(number, *overrides):
        out = tmp_path / str(number)
        given = command("method=dense", f"output_dir={out}", *overrides)
        main([text for text in given if not text.startswith("calibration")])
        return json.loads((out / "metrics.json").read_text())["perplexity"]["text"]["loss"]

    int4, whole = "evaluation.quantization=int4", loss(0)
    everything = "[q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj]"
    rounded, some = loss(1, int4), loss(2, int4, "model.skip=[down_proj]")

    assert loss(3, int4, f"model.skip={everything}") == whole
    assert len({whole, rounded, some}) == 3


def test_an_encoder_is_refused_by_the_whole_command(run, tmp_path):
    with pytest.raises(UserError, match="BertLMHeadModel is not causal"):
        run("encoder", "pattern=0.5")
    assert not (tmp_path / "out" / "pruning.json").exists()
