"""Whole commands on an accelerator: they find it, use it, say so, and go on where they stopped."""

import fcntl
import json
import logging
import os
import sys
from importlib import import_module

import pytest
import torch
from safetensors.torch import load_file

from thanos import layout
from thanos.artifacts import read_json
from thanos.errors import UserError
from thanos.evaluation import efficiency
from thanos.models import layer
from thanos.stages import prune as prune_stage
from thanos.stages.run import main as run
from thanos.workflow import gpus

from .conftest import run_of

# Bytes: more than tiny models and a real one's libraries take there (69 MB), less than a process.
ACCELERATORS_OWN = 2**28


@pytest.fixture
def stage(monkeypatch):
    """Calls a command by name, with its arguments, in this process."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        import_module(f"thanos.stages.{name}").main()

    return call


class Steps:
    """The commands of one run, in a folder of results."""

    def __init__(self, stage, given, results, place=None):
        self._stage, self.run, self.results = stage, run_of(given), results
        self._place = ["--place", json.dumps({**self.run.place.to_json(), **(place or {})})]
        self.checkpoint, self.record = results / layout.CHECKPOINT, results / layout.RECORD
        self.evaluation = results / layout.EVALUATION

    def call(self, name, spec, *arguments):
        self._stage(name, json.dumps(spec.to_json()), *self._place, *arguments)

    def tokens(self):
        self.call("calibrate", self.run.pruning.calibration, "--output", self.results / "tokens")
        for windows in self.run.evaluation.windows:
            self.call("corpora", windows, "--output", self.results / windows.id)

    def prune(self):
        given = ["--calibration", self.results / "tokens", "--checkpoint", self.checkpoint]
        self.call("prune", self.run.pruning, *given, "--record", self.record)
        return read_json(self.record)

    def evaluate(self):
        windows = [self.results / windows.id for windows in self.run.evaluation.windows]
        given = ["--checkpoint", self.checkpoint, "--parts", self.results / "parts"]
        given += ["--windows", *windows] if windows else []
        self.call("evaluate", self.run.evaluation, *given, "--output", self.evaluation)
        return read_json(self.evaluation)

    def weights(self):
        return load_file(self.checkpoint / "model.safetensors")


@pytest.fixture
def steps(stage, command, tmp_path):
    def make(*more, name="results", place=None):
        return Steps(stage, command("tracking=disabled", *more), tmp_path / name, place)

    return make


@pytest.mark.parametrize("quantization", [pytest.param("none", marks=pytest.mark.slow), "int8"])
def test_tokens_pruning_and_evaluation(accelerator, steps, quantization):
    options = ("method=thanos", "pattern=2:4", f"evaluation.quantization={quantization}")
    there, here = steps(*options), steps(*options, name="here", place={"device": "cpu"})
    losses = []
    for each in (there, here):
        each.tokens()
        pruned, evaluated = each.prune(), each.evaluate()
        (corpus,) = evaluated["corpora"].values()
        losses.append(corpus["loss"])
        device, dtype = pruned["provenance"]["used"]["device"], "float16"
        if each is here:
            assert device == "cpu"
        else:
            assert device == accelerator.type
            assert pruned["provenance"]["used"]["dtype"] == dtype
            assert corpus["provenance"]["used"]["device"] == accelerator.type
            assert 0 < pruned["peak_memory_bytes"] < ACCELERATORS_OWN
    assert losses[0] == pytest.approx(losses[1], abs=0.005)  # float16 there, float32 on the host
    for name, weight in there.weights().items():
        zeros = here.weights()[name] == 0
        assert ((weight == 0) != zeros).float().mean() < 0.05, name


@pytest.mark.slow
def test_a_run_by_hand_with_sizes_and_latencies(accelerator, command, tmp_path, monkeypatch):
    monkeypatch.setattr(efficiency, "_MOST_ROUNDS", 1)
    given = ("method=sparsegpt", "pattern=structured:0.25", "evaluation.efficiency=true")
    run(command(*given, "outlier_fraction=0.1"))
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["efficiency"]["device"] == accelerator.type
    assert metrics["efficiency"]["computed_in"] == "float16"
    assert metrics["efficiency"]["form"] == "compact"
    assert metrics["perplexity"]["text"]["perplexity"] > 1


@pytest.mark.parametrize(
    ("recovery", "more"),
    [("full", ()), ("full", ("recovery.distillation=1",)), ("lora", ())],
    ids=["full", "distilled", "lora"],
)
def test_a_recovery_is_trained_there(accelerator, command, tmp_path, recovery, more):
    text = ("recovery.source=text", f"recovery.path={tmp_path / 'text.txt'}")
    small = ("recovery.steps=3", "recovery.batch_size=2", f"recovery={recovery}")
    found = {}
    for device, kind in (("auto", accelerator.type), ("cpu", "cpu")):
        out = tmp_path / device
        run(command(f"output_dir={out}", "pattern=2:4", f"device={device}", *text, *small, *more))
        found[device] = read_json(out / "recovery.json")
        assert found[device]["provenance"]["used"]["device"] == kind
        assert found[device]["sparsity"] == 0.5
        assert found[device]["overfull_groups"] == 0
    assert 0 < found["auto"]["peak_memory_bytes"] < ACCELERATORS_OWN
    losses = found["auto"]["losses"]
    assert losses == pytest.approx(found["cpu"]["losses"], rel=1e-4)  # float32 on both


def test_a_stopped_pruning_goes_on_with_the_same_bits(accelerator, steps, monkeypatch):
    options = ("method=thanos", "pattern=0.5", "method.refine_steps=2", "method.order=sublayer")
    whole, stopped = steps(*options, name="whole"), steps(*options)
    whole.tokens()
    whole.prune()
    stopped.tokens()
    own, calls = layer.prune_linear_layer, iter(range(99))

    def stopping(*args, **kwargs):
        if next(calls) == 9:  # of the second block's seven layers
            raise KeyboardInterrupt
        return own(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("thanos.models.block.prune_linear_layer", stopping)
        with pytest.raises(KeyboardInterrupt):
            stopped.prune()
    assert stopped.prune()["resumed_blocks"] == 1
    for name, weight in whole.weights().items():
        assert torch.equal(stopped.weights()[name], weight), name


def test_what_was_pruned_elsewhere_is_not_gone_on_with(accelerator, steps, monkeypatch, caplog):
    there = steps("method=wanda", "pattern=2:4")
    there.tokens()
    with monkeypatch.context() as patch:
        patch.setattr(prune_stage, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            there.prune()
    here = steps("method=wanda", "pattern=2:4", place={"device": "cpu"})
    with caplog.at_level(logging.WARNING):
        assert here.prune()["resumed_blocks"] == 0
    assert "device, dtype changed" in caplog.text


def test_tasks_take_the_whole_model_where_the_accelerator_has_room(
    virtual, steps, model_folder, tmp_path, caplog
):
    file = model_folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "~"}))
    (tmp_path / "mirror" / "zeroshot").mkdir(parents=True)
    item = {"goal": "stand", "sol1": "rise", "sol2": "fall", "label": 0}
    (tmp_path / "mirror" / "zeroshot" / "piqa.jsonl").write_text(json.dumps(item) + "\n")
    tasks = ("evaluation.tasks=[piqa]", f"mirror={tmp_path / 'mirror'}")
    tasks += ("method=magnitude", "pattern=2:4", "evaluation.corpora=[]")
    found = []
    for room, how in ((2**40, "as a whole"), (virtual.memory.allocated + 10**6, "by blocks")):
        virtual.memory.total = room
        each = steps(*tasks, name=how)
        each.tokens()
        each.prune()
        with caplog.at_level(logging.INFO):
            found.append(each.evaluate()["tasks"]["piqa"]["acc"])
        assert f"tasks take the model {how}" in caplog.text
        caplog.clear()
    assert found[0] == found[1]


def test_a_job_of_a_workflow_takes_one_for_itself(accelerator, steps, tmp_path, monkeypatch):
    monkeypatch.setenv("THANOS_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(gpus, "_held", [])
    each = steps("method=magnitude", "pattern=2:4")
    each.tokens()
    each.prune()
    (lock,) = gpus._held
    (file,) = (tmp_path / "locks").iterdir()
    assert file.name == f"{os.uname().nodename}-all-0.lock"
    with file.open("w") as another, pytest.raises(BlockingIOError):
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.close()


@pytest.mark.parametrize("device", ["cuda:93", "mps:4", "xpu:5", "gpu", "vdev:1"])
def test_a_device_that_is_not_there_is_one_line(accelerator, steps, device):
    each = steps("method=magnitude", "pattern=2:4", place={"device": device})
    each.tokens()
    with pytest.raises(UserError, match=f"device {device} is not available .this machine has 1"):
        each.prune()


@pytest.mark.slow
def test_speed_and_timing(accelerator, stage, tmp_path):
    small = ("--hidden", 64, "--layers", 1, "--tokens", 32, "--alphas", 0, 0.1)
    stage("speed", *small, "--output", tmp_path / "speed")
    measured = read_json(tmp_path / "speed" / "speed.json")
    assert {row["device"] for row in measured["measured"]} == {accelerator.type}
    assert {row["computed_in"] for row in measured["measured"]} == {"float16"}
    suite = ["conf/timing/cpu.yaml", f"device={accelerator.type}", "repeats=1"]
    grid = "methods:[thanos,sparsegpt,wanda],patterns:['0.5','2:4'],block_sizes:[16],shapes:[64x64]"
    stage("timing", *suite, f"grids=[{{{grid}}}]", "--output", tmp_path / "timing")
    rows = read_json(tmp_path / "timing" / "timing.json")["rows"]
    assert len(rows) == 6
    assert all(row["peak_memory"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("method=thanos-plus", "pattern=2:4"),
        ("method=thanos-plus", "pattern=4:8", "method.allocation_mixed=true"),
        ("method=thanos-plus", "pattern=0.5"),
        ("method=thanos", "pattern=heads-neurons:0.3", "evaluation.efficiency=true"),
        ("method=thanos", "pattern=0.5", "method.allocation=owl", "evaluation.divergence=true"),
        (
            "method=wanda",
            "pattern=4:8",
            "method.reconstruction_steps=4",
            "method.reconstruction_batch=2",
        ),
    ],
)
def test_options_of_a_whole_run(accelerator, command, tmp_path, monkeypatch, options):
    monkeypatch.setattr(efficiency, "_MOST_ROUNDS", 1)
    found = []
    for device in ("auto", "cpu"):
        out = tmp_path / device
        run(command(*options, f"device={device}", f"output_dir={out}"))
        found.append(read_json(out / "metrics.json")["perplexity"]["text"]["perplexity"])
    assert found[0] == pytest.approx(found[1], rel=0.03)  # float16 there, float32 on the host
