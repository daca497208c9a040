"""An evaluation keeps what it has measured: whatever fails or is killed costs that alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thanos.artifacts import read_json, write_json
from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.paths import PROJECT
from thanos.stages.corpora import cut_corpus
from thanos.stages.evaluate import Inputs, evaluate

PROGRAM = [sys.executable, "-m", "thanos.stages.evaluate"]
# A task whose scoring takes for ever, in the place of the real one.
SLOW = """
import sys, time
from thanos.stages import evaluate
evaluate.zero_shot = lambda *_, **__: time.sleep(600)
sys.exit(evaluate.main())
"""


class Evaluation:
    """The stage on the dense testbed model: a text of its own, and tasks of a mirror."""

    def __init__(self, folder: Path, tasks: str) -> None:
        self.folder = folder
        self.parts = folder / "measurements"
        self.mirror = folder / "mirror"
        (self.mirror / "zeroshot").mkdir(parents=True)
        text = folder / "text.txt"
        text.write_text((PROJECT / "LICENSE").read_text())
        overrides = ["method=dense", "evaluation=text", f"evaluation.path={text}"]
        overrides += ["model.context=64", f"evaluation.tasks={tasks}", f"mirror={self.mirror}"]
        run = RunBuilder().run(resolve(overrides))
        self.spec, self.place = run.evaluation, run.place
        cut_corpus(run.evaluation.windows[0], self.place, folder / "windows")

    def command(self, program=PROGRAM) -> list[str]:
        return [
            *(
                *program,
                json.dumps(self.spec.to_json()),
                "--place",
                json.dumps(self.place.to_json()),
            ),
            *("--windows", str(self.folder / "windows"), "--parts", str(self.parts)),
            *("--output", str(self.folder / "evaluation.json")),
        ]

    def run(self) -> dict:
        inputs = Inputs(None, [self.folder / "windows"], None, self.parts)
        return evaluate(self.spec, self.place, inputs)

    def have_task(self, name: str) -> None:
        row = {"passage": "It is so.", "question": "is it so", "answer": True}
        rows = [json.dumps({**row, "question": f"is it {n}"}) for n in range(4)]
        (self.mirror / "zeroshot" / f"{name}.jsonl").write_text("\n".join(rows))

    def measured(self) -> dict[str, int]:
        """When each part was written, by its name."""
        files = self.parts.glob("*.json")
        return {f.name.rpartition("-")[0]: f.stat().st_mtime_ns for f in files}


def test_a_task_without_data_costs_that_task(tmp_path):
    evaluation = Evaluation(tmp_path, "[rte,boolq]")
    evaluation.have_task("boolq")
    with pytest.raises(UserError, match=r"for task 'rte'.*; what else was measured stays"):
        evaluation.run()
    first = evaluation.measured()
    assert first.keys() == {"text", "boolq", "dense"}

    row = {"premise": "It rains.", "hypothesis": "It is dry.", "label": "not_entailment"}
    file = evaluation.mirror / "zeroshot" / "rte.jsonl"
    file.write_text("\n".join(json.dumps(row) for _ in range(3)))
    results = evaluation.run()
    second = evaluation.measured()
    assert {name: second[name] for name in first} == first
    assert results["tasks"].keys() == {"rte", "boolq"}
    assert results["corpora"]["text"]["perplexity"] > 1

    # Other data for one task, without another size: that task alone is scored again.
    file.write_text(file.read_text().replace("It is dry", "It is wet"))
    evaluation.run()
    third = evaluation.measured()
    assert {name for name in third if third[name] != second[name]} == {"rte"}


def test_killed_between_two_files_it_goes_on_with_the_second(tmp_path):
    evaluation = Evaluation(tmp_path, "[boolq]")
    evaluation.have_task("boolq")
    process = subprocess.Popen(
        evaluation.command([sys.executable, "-c", SLOW]), stderr=subprocess.DEVNULL, cwd=PROJECT
    )
    deadline = time.monotonic() + 120
    while "text" not in evaluation.measured() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = evaluation.measured()
    assert first.keys() == {"text"}
    results = evaluation.run()
    assert evaluation.measured()["text"] == first["text"]
    assert results["tasks"]["boolq"]["n"] == 4


@pytest.mark.parametrize("damage", ["half", "another"])
def test_a_part_that_is_damaged_or_of_other_tokens_is_measured_again(tmp_path, damage):
    evaluation = Evaluation(tmp_path, "[]")
    whole = evaluation.run()["corpora"]["text"]["perplexity"]
    (part,) = evaluation.parts.glob("text-*.json")
    if damage == "half":
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    else:
        values = read_json(part)
        values["provenance"]["fingerprint"]["inputs"]["windows"] = "0" * 64
        write_json(part, {**values, "perplexity": 1.0})
    assert evaluation.run()["corpora"]["text"]["perplexity"] == whole
