"""A mixture of experts through the whole command: pruned whole, or refused by an expert's name."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig

from thanos.errors import UserError
from thanos.stages.run import main


@pytest.fixture
def mixture(command, model_folder):
    """The run of a random Mixtral in bfloat16 with four experts, two of them per token."""
    config = MixtralConfig(
        vocab_size=256,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=32,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(model_folder)
    return lambda *more: command("method=thanos", "pattern=2:4", *more)


def test_every_matrix_of_every_expert_is_pruned(mixture, model_folder, tmp_path):
    main(mixture("calibration.windows=32"))

    pruned = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    dense = load_file(model_folder / "model.safetensors")
    assert pruned.keys() == dense.keys()
    experts = [name for name in pruned if ".experts." in name]
    assert len(experts) == 2 * 4 * 3
    for name in [*experts, *(name for name in pruned if "self_attn" in name)]:
        assert torch.all((pruned[name] == 0).unflatten(1, (-1, 4)).sum(-1) == 2), name
        assert pruned[name].dtype == torch.bfloat16
    routers = [name for name in pruned if "gate.weight" in name]
    assert len(routers) == 2
    assert all(torch.equal(pruned[name], dense[name]) for name in routers)
    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert record["sparsity"] == 0.5
    assert len(record["layers"]) == 2 * (4 + 4 * 3)
    logits = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint")(
        input_ids=torch.arange(20)[None]
    ).logits
    assert torch.isfinite(logits).all()


def test_an_expert_with_too_few_tokens(mixture, tmp_path):
    few = "calibration.windows=1"
    with pytest.raises(
        UserError, match=r"layers\.0\..*experts\.\d\.\w+ saw \d+ tokens, fewer than its 24 columns"
    ):
        main(mixture(few))
    assert not (tmp_path / "out").exists()

    main(mixture(few, "model.rare_experts=magnitude"))

    record = json.loads((tmp_path / "out" / "pruning.json").read_text())
    rare = [layer for layer in record["layers"] if layer["details"].get("data_free")]
    assert rare
    assert all(".experts." in layer["layer"] and layer["sparsity"] == 0.5 for layer in rare)


def test_magnitude_needs_no_tokens(mixture, tmp_path):
    main(mixture("method=magnitude", "calibration.windows=1"))

    assert json.loads((tmp_path / "out" / "pruning.json").read_text())["sparsity"] == 0.5
