"""One call: the same pruning as by the stages, on a loaded model and on a folder."""

import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from thanos import prune
from thanos.errors import UserError
from thanos.paths import PROJECT, SOURCE
from thanos.stages.run import main

MODELS = SOURCE / "thanos" / "testbed" / "models"
README = (PROJECT / "README.md").read_text(encoding="utf-8")
TEXT = (PROJECT / "LICENSE").read_text(encoding="utf-8")  # which nobody edits
SMALL = {"windows": 4, "context": 64}


def matrices(model):
    return {n: p for n, p in model.named_parameters() if "layers" in n and p.dim() == 2}


def load(name="doc-llama", **options):
    return AutoModelForCausalLM.from_pretrained(MODELS / name, **options)


@pytest.mark.parametrize("name", ["doc-llama", "doc-opt"])
def test_a_loaded_model_is_pruned_in_place(name):
    model = load(name).train()
    result = prune(model, TEXT, method="wanda", pattern="2:4", **SMALL)
    assert result.model is model
    assert model.training
    for layer, weight in matrices(model).items():
        assert torch.all((weight == 0).unflatten(1, (-1, 4)).sum(-1) >= 2), layer
    assert result.sparsity == pytest.approx(0.5, abs=0.001)
    assert 0 < result.relative_error < 1
    frame = result.to_frame()
    assert len(frame) == len(matrices(model))
    assert {"block", "layer", "rows", "columns", "sparsity", "relative_error"} <= set(frame.columns)
    assert f"{name} by wanda, 2:4: " in repr(result)
    assert "sparsity 0.500" in repr(result)
    assert "<table" in result._repr_html_()
    assert "model.decoder" in result._repr_html_() or "model.layers" in result._repr_html_()


def test_a_folder_gives_what_the_command_gives(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text(TEXT, encoding="utf-8")
    folder = MODELS / "doc-llama"
    result = prune(
        folder,
        text,
        method="wanda",
        pattern="4:8",
        outlier_fraction=0.1,
        output=tmp_path / "one",
        **SMALL,
    )
    assert result.model is None
    overrides = ["model=hf", f"model.path={folder}", "model.context=64", "method=wanda"]
    overrides += [
        "pattern=4:8",
        "outlier_fraction=0.1",
        "calibration=text",
        "calibration.windows=4",
    ]
    overrides += [f"calibration.path={text}", "evaluation.corpora=[]", "evaluation.tasks=[]"]
    main([*overrides, f"output_dir={tmp_path / 'out'}"])
    weights = load_file(result.checkpoint / "model.safetensors")
    by_command = load_file(tmp_path / "out" / "checkpoint" / "model.safetensors")
    assert weights.keys() == by_command.keys()
    assert all(torch.equal(weights[name], by_command[name]) for name in weights)
    # Loaded in float32 it computes as the stage does, but for the rounding to the stored float16.
    loaded = prune(
        load(dtype=torch.float32),
        text,
        method="wanda",
        pattern="4:8",
        outlier_fraction=0.1,
        **SMALL,
    )
    ours, theirs = loaded.to_frame(), result.to_frame()
    assert ours["layer"].tolist() == theirs["layer"].tolist()
    errors = theirs["relative_error"].tolist()
    assert ours["relative_error"].tolist() == pytest.approx(errors, rel=0.01)


def test_token_ids_and_several_texts(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "doc-llama")
    ids = torch.tensor(tokenizer(TEXT)["input_ids"])[:256].reshape(4, 64)
    result = prune(load(), ids, method="wanda", pattern="0.5", refine_steps=1)
    spec = result.record["spec"]
    assert (spec["calibration"]["windows"], spec["calibration"]["context"]) == (4, 64)
    assert spec["refine_steps"] == 1
    texts = [TEXT, TEXT[::-1]]
    options = {"method": "wanda", "pattern": 0.6, "layer_errors": False, "tokenizer": tokenizer}
    first, second = (prune(load(), texts, **options, **SMALL) for _ in "ab")
    assert first.record["calibration"] == second.record["calibration"]
    assert all(map(torch.equal, matrices(first.model).values(), matrices(second.model).values()))
    assert first.sparsity == pytest.approx(0.6, abs=0.005)  # whole weights per row


def test_methods_that_look_at_weights_alone_need_no_text():
    result = prune(load(), method="magnitude", pattern="structured:0.25")
    assert result.relative_error is None
    assert result.sparsity == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (None, {}, "method thanos with pattern unstructured:0.5 calibrates: give a text"),
        (TEXT, {"method": "obs"}, "unknown method 'obs'; known: admm"),
        (TEXT, {"method": "dense"}, "prunes nothing"),
        (TEXT, {"pattern": "5:4"}, "pattern '5:4'"),
        (TEXT, {"pattern": "2:7"}, r"q_proj: pattern 2:7"),
        (TEXT, {"dampening": 1}, "unknown option 'dampening'"),
        (TEXT, {"name": "x"}, "unknown option 'name'"),
        (TEXT, {"method": "wanda", "damping": 0.1}, "key 'method.damping' is not used by method w"),
        (None, {"method": "magnitude", "windows": 3}, "key 'calibration.windows' is not used"),
        (TEXT, {"windows": 0}, "calibration.windows is 0"),
        (TEXT, {"revision": "main"}, "revision is for folders|'model.revision' is not used"),
        (TEXT, {"hidden_memory": 1}, "hidden_memory is for folders"),
        (TEXT, {"output": "x"}, "output is for folders"),
        ("too short", {}, "text"),
        (torch.zeros(2, 3), {}, "tensor of integers"),
        (torch.zeros(2, 3, dtype=torch.long), {"seed": 1}, "seed is for texts"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(text, options, message):
    model = load()
    before = {name: weight.clone() for name, weight in matrices(model).items()}
    with pytest.raises(UserError, match=message):
        prune(model, text, **options)
    assert all(torch.equal(weight, before[name]) for name, weight in matrices(model).items())


def test_a_folder_needs_somewhere_to_go(tmp_path):
    with pytest.raises(UserError, match="output must be given"):
        prune(MODELS / "doc-opt", TEXT)
    with pytest.raises(UserError, match="exists already"):
        prune(MODELS / "doc-opt", TEXT, output=tmp_path)


def test_the_readmes_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(from thanos import prune.*?)```", README, flags=re.DOTALL)
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    (tmp_path / "thanos").mkdir()
    program = f"import os; os.chdir({str(tmp_path)!r})\n" + example.replace(
        "thanos/testbed/models", MODELS.as_posix()
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sparsity 0.5" in done.stdout
    assert (tmp_path / "pruned" / "model.safetensors").is_file()


def test_importing_the_package_loads_nothing():
    code = (
        "import sys, thanos; print([m for m in ('torch', 'hydra', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
