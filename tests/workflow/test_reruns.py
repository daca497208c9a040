"""What a change under a finished suite makes again: what depends on it, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PROJECT, Workflow

METHODS = "method=magnitude,sparsegpt,thanos pattern=2:4 outlier_fraction=0"
REPORTING = {"collect": 1, "tables": 1, "figures": 1, "suite_report": 1, "demo": 1}


class Local(Workflow):
    """A finished suite on a local model and local texts, made by a copy of the project."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, directory / "project")
        ignored = shutil.ignore_patterns(".*", "results", "tests", "docs", "__pycache__")
        shutil.copytree(PROJECT, self.project, ignore=ignored)
        shutil.copytree(PROJECT / "results" / "reference", self.project / "results" / "reference")
        self.model = directory / "models" / "mine"
        shutil.copytree(PROJECT / "thanos" / "testbed" / "models" / "doc-llama", self.model)
        sources = sorted((PROJECT / "thanos").rglob("*.py"))
        half = len(sources) // 2
        self.calibration, self.evaluation = directory / "a.txt", directory / "b.txt"
        self.calibration.write_text("\n".join(f.read_text() for f in sources[:half]))
        self.evaluation.write_text("\n".join(f.read_text() for f in sources[half:]))
        self.overrides = self.overriding()

    def overriding(self, model: Path | None = None, others: str = "") -> str:
        """Overrides that name model and texts."""
        return (
            f"model=hf model.path={model or self.model} model.context=64 {METHODS} "
            f"calibration=text calibration.path={self.calibration} "
            f"evaluation=text evaluation.path={self.evaluation} tracking=disabled {others}"
        )

    def after(self, *arguments: str, overrides: str | None = None) -> dict[str, int]:
        """The jobs that a dry run lists, without their sum."""
        jobs = self.jobs("demo", *arguments, overrides=overrides)
        jobs.pop("total", None)
        return jobs


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    workflow = Local(tmp_path_factory.mktemp("local"))
    workflow("demo")
    assert workflow.after() == {}
    return workflow


def edited(project: Path, module: str, old: str, new: str) -> Callable[[], None]:
    """Replace a text of a module, which must be there; return what puts it back."""
    file = project / "thanos" / module
    content = file.read_text()
    assert content.count(old) == 1, (module, old)
    file.write_text(content.replace(old, new))
    return lambda: file.write_text(content) and None


def flipped(file: Path, place: int = -2) -> Callable[[], None]:
    """Change one byte in place: neither size nor modification time tell."""
    before, content = file.stat(), bytearray(file.read_bytes())
    original = bytes(content)
    content[place] = ord("x") if content[place] != ord("x") else ord("y")
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    return lambda: file.write_bytes(original) and None


# Which change of the source changes whose fingerprint: tests/identity/test_code.py.
SOURCES = [
    ("pruning/updates.py", "    return direct\n", "    # why not\n    return (direct)\n", {}),
    # The sign of the joint update: Thanos, and what is behind it.
    (
        "pruning/updates.py",
        "addmm_(Lambda, A, alpha=-1)",
        "addmm_(Lambda, A, alpha=1)",
        {"prune": 1, "evaluate": 1, **REPORTING},
    ),
    (
        "reporting/tables.py",
        "def main_table(",
        "_UNUSED = 1\n\n\ndef main_table(",
        {"tables": 1, "suite_report": 1, "demo": 1},
    ),
    (
        "evaluation/perplexity.py",
        "ahead = 1",
        "ahead = 1 + 0",
        {"evaluate": 4, **REPORTING},
    ),
]


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    SOURCES,
    ids=["comment", "joint-update", "table", "perplexity"],
)
def test_a_change_of_the_source(local, module, old, new, expected):
    undo = edited(local.project, module, old, new)
    try:
        assert local.after() == expected
    finally:
        undo()


def test_changed_code_makes_nothing_again_for_who_asks_for_times_only(local):
    undo = edited(local.project, "pruning/updates.py", "alpha=-1)", "alpha=1)")
    try:
        assert local.after("--rerun-triggers", "mtime") == {}
    finally:
        undo()


def test_a_weight_of_the_model(local):
    undo = flipped(local.model / "model.safetensors")
    try:
        jobs = local.after()
        assert jobs == {"list_runs": 1, "prune": 3, "evaluate": 4, **REPORTING}
    finally:
        undo()


def test_the_tokenizer_of_the_model(local):
    undo = flipped(local.model / "tokenizer.json")
    try:
        jobs = local.after()
        tokens = {"calibration": 1, "evaluation_windows": 1}
        assert jobs == {"list_runs": 1, **tokens, "prune": 3, "evaluate": 4, **REPORTING}
    finally:
        undo()


def test_a_byte_of_the_calibration_text(local):
    undo = flipped(local.calibration)
    try:
        jobs = local.after()
        pruned = {"calibration": 1, "prune": 3, "evaluate": 3}
        assert jobs == {"list_runs": 1, **pruned, **REPORTING}
    finally:
        undo()


def test_a_byte_of_the_evaluation_text(local):
    undo = flipped(local.evaluation)
    try:
        jobs = local.after()
        assert jobs == {"list_runs": 1, "evaluation_windows": 1, "evaluate": 4, **REPORTING}
    finally:
        undo()


def test_a_copy_of_the_model_elsewhere_is_the_same_model(local):
    copy = local.directory / "elsewhere" / "mine"
    if not copy.exists():
        shutil.copytree(local.model, copy)
    assert local.after(overrides=local.overriding(model=copy)) == {}


def test_where_and_how_it_is_computed_changes_nothing(local):
    place = (
        "device=cpu memory_budget=100000000 hidden_memory=0.001 calibration.batch_size=2 "
        f"evaluation.batch_size=3 mirror={local.directory}"
    )
    assert local.after("threads=2", overrides=local.overriding(others=place)) == {}


def test_another_evaluation_prunes_nothing(local):
    jobs = local.after(overrides=local.overriding(others="evaluation.max_windows=3"))
    assert jobs == {"list_runs": 1, "evaluation_windows": 1, "evaluate": 4, **REPORTING}


def test_the_same_models_in_another_suite_are_there(local):
    jobs = local.jobs("ablation-quantization", overrides=local.overriding())
    rules = {"evaluate": 4, "ablation-quantization": 1}  # int4 of the four models
    assert {rule: jobs.get(rule, 0) for rule in (*rules, "prune", "calibration")} == {
        **rules,
        "prune": 0,
        "calibration": 0,
    }


def test_what_changes_while_it_is_planned_is_refused_by_the_stage(local, tmp_path):
    record = json.loads(local.files("pruned")["thanos-2-4"].read_text())
    undo = flipped(local.model / "model.safetensors")
    try:
        command = [sys.executable, "-m", "thanos.stages.prune", json.dumps(record["spec"])]
        command += [
            "--calibration",
            next(map(str, local.results.glob("calibration/text-*[0-9a-f]"))),
        ]
        command += ["--checkpoint", str(tmp_path / "out"), "--record", str(tmp_path / "out.json")]
        result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
        assert result.returncode == 1
        assert re.search(r"error: model .*mine has changed since this was planned", result.stderr)
        assert not list(tmp_path.iterdir())
    finally:
        undo()


def test_quantised_evaluations_share_their_pruned_models(tmp_path):
    workflow = Workflow(tmp_path)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    command += ["--dry-run", "ablation-quantization", "--directory", str(workflow.directory)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
    assert (counts["prune"], counts["evaluate"]) == ("12", "39")
