"""Memory plans against measured peaks: never below, at most a quarter above, for every stage.

A peak is the largest resident set (VmHWM) of a process that does nothing but the stage.
"""

import json
import subprocess
import sys

import pytest

from thanos.workflow.resources import (
    Machine,
    evaluation_mb,
    latency_mb,
    pruning_mb,
    tokens_mb,
)

from .conftest import run_of
from .test_memory import MEASURED, write_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MIB = 2**20
ROOM = 64 * 2**30  # whole models fit
LARGE = 150_000  # tokens of a vocabulary
# name: hidden, blocks, vocabulary, windows, tokens per window, MiB of text, further overrides
SHAPES = {
    "narrow": (512, 4, 256, 16, 256, 0.1, ()),
    "wide": (1024, 3, 256, 8, 256, 2, ("pattern=2:4",)),
    "permuted": (1024, 3, 256, 8, 256, 2, ("method=thanos-plus", "pattern=2:4")),
    # Two streams of hidden states, and what a block's layers get in the dense model.
    "compared": (512, 3, 256, 64, 256, 1, ("method=thanos-plus", "hidden_memory=1")),
    "deep": (512, 24, 256, 16, 128, 0.5, ("method=wanda",)),
    "vocabulary": (256, 2, LARGE, 4, 512, 0.1, ("pattern=2:4",)),
    "logits": (256, 2, 16_000, 8, 512, 0.1, ("pattern=2:4",)),  # of a batch, all at once
}


class Stages:
    """Runs the stages of one run, each in a process of its own, and notes the peaks in MiB."""

    def __init__(self, run):
        self.run = run
        self.peaks = {}

    def __call__(self, name, stage, spec, *more):
        place = json.dumps(self.run.place.to_json())
        command = [sys.executable, "-c", MEASURED, stage, json.dumps(spec.to_json())]
        command += ["--place", place, *map(str, more)]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        self.peaks[name] = int(result.stdout.splitlines()[-1]) / 1024


@pytest.fixture
def measured(command, model_folder, tmp_path):
    """Predicted and measured peaks, in MiB, of every stage of one run on a model."""

    def measure(hidden, blocks, vocabulary, windows, tokens, megabytes, more):
        write_llama(tmp_path / "model", model_folder, hidden, blocks, vocabulary)
        line = "A line of the calibration text. "
        (tmp_path / "long.txt").write_text(line * int(megabytes * MIB / len(line)))
        (tmp_path / "zeroshot").mkdir()
        questions = [  # nearly as long as the plan takes any to be
            {"goal": f"Item {n}. " * 23, "sol1": "one two " * 3, "sol2": "three", "label": n % 2}
            for n in range(40)
        ]
        (tmp_path / "zeroshot" / "piqa.jsonl").write_text("\n".join(map(json.dumps, questions)))
        given = [f"model.path={tmp_path / 'model'}", f"model.context={tokens}", "device=cpu"]
        given += [f"calibration.windows={windows}", f"evaluation.max_windows={windows}"]
        given += ["evaluation.tasks=[piqa]", "evaluation.limit=40"]
        given += [] if "hidden_memory=1" in more else ["hidden_memory=0.02"]
        given += [f"{use}.path={tmp_path / 'long.txt'}" for use in ("calibration", "evaluation")]
        run = run_of(command(*given, f"mirror={tmp_path}", "evaluation.efficiency=true", *more))
        corpus, task, _ = run.evaluation.parts()
        calibration, (cut,) = run.pruning.calibration, run.evaluation.windows
        pruned = ("--checkpoint", tmp_path / "pruned")
        parts = ("--parts", tmp_path / "parts", "--output", tmp_path / "evaluation.json")

        stages = Stages(run)
        stages("calibrate", "calibrate", calibration, "--output", tmp_path / "tokens")
        stages("windows", "corpora", cut, "--output", tmp_path / "windows")
        drawn = ("--calibration", tmp_path / "tokens", "--record", tmp_path / "pruning.json")
        stages("prune", "prune", run.pruning, *drawn, *pruned)
        stages("perplexity", "evaluate", corpus, *pruned, *parts, "--windows", tmp_path / "windows")
        stages("task by blocks", "evaluate", task, *pruned, *parts, "--memory", 1)
        next((tmp_path / "parts").glob("piqa-*")).unlink()
        stages("whole model", "evaluate", task, *pruned, *parts, "--memory", ROOM // MIB)
        stages("efficiency", "efficiency", run.latency, *pruned, "--output", tmp_path / "l.json")

        small, large = Machine(memory=1, gpus=False), Machine(memory=ROOM, gpus=False)
        predicted = {
            "calibrate": tokens_mb(calibration, run.place),
            "windows": tokens_mb(cut, run.place),
            "prune": pruning_mb(run.pruning, run.place, small),
            "perplexity": evaluation_mb(corpus, run.place, small),
            "task by blocks": evaluation_mb(task, run.place, small),
            "whole model": evaluation_mb(task, run.place, large),
            "efficiency": latency_mb(run.latency, run.place, small),
        }
        return {stage: (predicted[stage], peak) for stage, peak in stages.peaks.items()}

    return measure


@pytest.mark.parametrize("shape", SHAPES)
def test_plans_are_never_below_the_peak_nor_far_above(shape, measured, capsys):
    found = measured(*SHAPES[shape])

    with capsys.disabled():
        for stage, (plan, peak) in found.items():
            line = f"{plan:8,.0f} MiB planned, {peak:8,.0f} measured, {plan / peak:.2f}"
            sys.stdout.write(f"\n{shape:12}{stage:16}{line}")
    off = {stage: both for stage, both in found.items() if not 1 <= both[0] / both[1] <= 1.25}
    assert not off
