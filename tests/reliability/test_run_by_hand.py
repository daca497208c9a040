"""`python -m thanos` on a model folder and a text file that the project has never seen."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from thanos.artifacts import verify_manifest
from thanos.models import replay
from thanos.models.kept_states import KeptStates
from thanos.models.parts import PARTS
from thanos.opening import window_length
from thanos.stages.run import main

from .conftest import run_of


def block_matrices(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return {n: p for n, p in model.named_parameters() if "layers" in n and p.dim() == 2}


def test_a_run_prunes_evaluates_and_saves(command, model_folder, tmp_path):
    main(command("method=thanos", "pattern=2:4"))
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "checkpoint",
        "config.yaml",
        "metrics.json",
        "pruning.json",
    }
    verify_manifest(out / "checkpoint", maker="rule prune")
    for name, weight in block_matrices(out / "checkpoint").items():
        zeros = (weight == 0).unflatten(1, (-1, 4)).sum(-1)
        assert torch.all(zeros == 2), name
        assert weight.dtype == torch.float16
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["perplexity"]["text"]["perplexity"] > 1
    assert metrics["pruning"]["sparsity"] == 0.5
    record = json.loads((out / "pruning.json").read_text())
    assert record["seconds"] == sum(record["seconds_by_part"].values())
    assert all(record["seconds_by_part"][name] > 0 for name in PARTS if name != "waiting")
    layers = record["layers"]
    assert len(layers) == 2 * 7
    assert all(layer["damping"] == 0.01 for layer in layers)
    assert not list(model_folder.parent.glob(".out*"))


def test_outlier_rows_stay_dense(command, tmp_path):
    main(command("method=wanda", "pattern=structured:0.25", "outlier_fraction=0.1"))
    dense = block_matrices(tmp_path / "stranger")
    for name, weight in block_matrices(tmp_path / "out" / "checkpoint").items():
        untouched = (weight == dense[name]).all(1)
        assert int(untouched.sum()) == -(-weight.shape[0] // 10), name


@pytest.mark.parametrize("kind", ["owl", "error"])
def test_hidden_states_lie_in_files_while_the_dense_model_is_looked_at(
    command, tmp_path, monkeypatch, kind
):
    options = ("method=magnitude", "pattern=0.5", f"method.allocation={kind}")
    main(command(*options))

    class Probe(KeptStates):
        """In memory without a word of where to keep them: for one window at most."""

        def append(self, states):
            assert len(states) == 1
            super().append(states)

    monkeypatch.setattr(replay, "KeptStates", Probe)
    main(command(*options, "hidden_memory=0", f"output_dir={tmp_path / 'mapped'}"))
    kept, mapped = (tmp_path / run / "checkpoint/model.safetensors" for run in ("out", "mapped"))
    assert kept.read_bytes() == mapped.read_bytes()


def test_size_and_latency_are_measured_if_asked_for(command, tmp_path):
    main(command("method=magnitude", "pattern=structured:0.25", "evaluation.efficiency=true"))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    sizes, efficiency = metrics["size"]["bytes"], metrics["efficiency"]
    assert 0.8 < sizes["pruned_tensors_packed"] / sizes["pruned_tensors"] < 0.83  # 3/4 + 1/16
    assert efficiency["form"] == "compact"
    assert efficiency["bytes"]["compact"] < efficiency["bytes"]["dense"]
    assert efficiency["forward"]["speedup"] > 0


@pytest.mark.parametrize(("context", "tokens"), [(131072, 32), (32, 32), (16, 16)])
def test_windows_are_never_longer_than_the_model_allows(command, context, tokens):
    run = run_of(command(f"model.context={context}"))
    tokenized = run.pruning.calibration
    assert window_length(tokenized.model, tokenized.context, run.place) == tokens


def test_the_same_run_twice_gives_the_same_files(command, tmp_path):
    hashes = []
    for name in ("first", "second"):
        main(command("method=thanos", "pattern=0.5", f"output_dir={tmp_path / name}"))
        manifest = verify_manifest(tmp_path / name / "checkpoint", maker="rule prune")
        hashes.append(manifest["files"]["model.safetensors"]["sha256"])
    assert hashes[0] == hashes[1]


def test_the_dense_run_changes_nothing(command, model_folder, tmp_path):
    unused = ("calibration.path", "calibration.windows")
    main([key for key in command("method=dense") if not key.startswith(unused)])
    original = block_matrices(model_folder)
    for name, weight in block_matrices(tmp_path / "out" / "checkpoint").items():
        assert torch.equal(weight, original[name])
    assert not (tmp_path / "out" / "pruning.json").exists()


def test_an_error_is_one_line_and_a_non_zero_status(command, tmp_path):
    arguments = [sys.executable, "-m", "thanos", *command("pattern=2:7")]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
