"""Each bad input is one clear line, and nothing is left behind."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thanos.artifacts import read_json
from thanos.errors import UserError
from thanos.evaluation.perplexity import PerplexityResult
from thanos.stages import evaluate
from thanos.stages.run import main

from .conftest import CONTEXT


def refused(command, message, *more, blocks=0):
    """Run and expect one line; afterwards there is no `out`, and beside it finished blocks only."""
    overrides = command(*more)
    out = next(o.partition("=")[2] for o in overrides if o.startswith("output_dir="))
    with pytest.raises(UserError, match=message) as caught:
        main(overrides)
    assert "\n" not in str(caught.value)
    folder = Path(out)
    partial = folder.with_name(f"{folder.name}.partial")
    assert list(folder.parent.glob(f"*{folder.name}*")) == ([partial] if blocks else [])
    assert len(list(partial.rglob("block-*.json"))) == blocks


def test_pattern_that_does_not_divide_a_layer_names_the_layer(command):
    message = r"model.layers.0.self_attn.q_proj: pattern 2:7 needs a width .* multiple of 7"
    refused(command, message, "pattern=2:7")


def test_outlier_rows_that_leave_too_few_rows(command):
    message = r"q_proj: pattern structured:0.5 .* would remove 48 of 24 columns"
    refused(command, message, "pattern=structured:0.5", "outlier_fraction=0.75")
    refused(command, r"q_proj: .*keeps all 24 rows dense", "outlier_fraction=0.99")


def test_calibration_text_shorter_than_a_window(command, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    refused(command, r"short.txt.*32", f"calibration.path={short}")


def test_missing_texts(command, tmp_path):
    refused(command, r"nowhere.txt does not exist", f"calibration.path={tmp_path / 'nowhere.txt'}")
    refused(command, r"nowhere.txt does not exist", f"evaluation.path={tmp_path / 'nowhere.txt'}")


def test_a_model_folder_without_weights_or_tokenizer(command, model_folder, tmp_path):
    refused(command, r"absent does not exist", f"model.path={tmp_path / 'absent'}")
    tokenizer = (model_folder / "tokenizer.json").read_bytes()
    (model_folder / "tokenizer.json").unlink()
    refused(command, r"stranger holds no tokenizer")
    (model_folder / "tokenizer.json").write_bytes(tokenizer)
    (model_folder / "model.safetensors").unlink()
    refused(command, r"stranger holds no weights")


def test_tasks_for_a_tokenizer_without_a_token_before_or_after_texts(command):
    refused(command, r"evaluation.tasks: .*bos_token or eos_token", "evaluation.tasks=[piqa]")


def test_a_truncated_weight_file_is_named(command, model_folder):
    file = model_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused(command, r"model.safetensors is damaged or incomplete")


def test_a_non_finite_weight_is_named(command, model_folder):
    file = model_folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    refused(command, r"model.layers.1.mlp.up_proj.weight .*NaN", blocks=1)


def test_a_non_finite_activation_names_layer_and_block(command, model_folder):
    file = model_folder / "model.safetensors"
    weights = {name: weight.float() for name, weight in load_file(file).items()}
    # Finite weights whose product overflows in the very precision that they are stored in.
    weights["model.layers.1.mlp.up_proj.weight"].fill_(3e38)
    weights["model.layers.1.mlp.gate_proj.weight"].fill_(3e38)
    save_file(weights, file, metadata={"format": "pt"})
    refused(command, r"model.layers.1.mlp.down_proj", blocks=1)


def test_a_model_configuration_that_is_no_json(command, model_folder):
    (model_folder / "config.json").write_text("{")
    refused(command, r"stranger.config.json")


def test_an_output_folder_that_exists_is_kept(command, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("keep me")
    with pytest.raises(UserError, match="exists already"):
        main(command())
    assert (out / "precious.txt").read_text() == "keep me"


def test_a_result_that_is_not_finite_is_no_result(command, monkeypatch, tmp_path):
    def broken(*_):
        return PerplexityResult(float("inf"), 0.0, 1, CONTEXT, (0.0,))

    monkeypatch.setattr(evaluate, "perplexity_of_logits", broken)
    refused(command, r"^perplexity is not finite; .*text-\w+\.json is not written", blocks=2)
    measured = read_json(next((tmp_path / "out.partial" / "measurements").iterdir()))
    assert measured["kind"] == "size"  # the pruning itself was fine


def test_code_of_a_foreign_model_is_not_run_unless_asked(command, model_folder):
    config = json.loads((model_folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    config["model_type"] = "evil"
    (model_folder / "config.json").write_text(json.dumps(config))
    (model_folder / "evil.py").write_text("raise SystemExit('ran foreign code')")
    refused(command, r"config.json|trust_remote_code")
