"""Stages of the workflow: files are damaged, jobs killed or doubled, the disk is full."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from thanos import layout
from thanos.artifacts import read_json, verify_manifest, write_json
from thanos.config import Run
from thanos.errors import UserError
from thanos.models import work_folder
from thanos.workflow.catalog import listing
from thanos.workflow.suites import Suite

from .conftest import run_of

FORK = multiprocessing.get_context("fork")


class Stages:
    """The stages of one run on the small model, as the rules call them."""

    def __init__(self, results: Path, run: Run) -> None:
        self.results, self.run = results, run
        pruning, (windows,) = run.pruning, run.evaluation.windows
        self.tokens = results / layout.CALIBRATION / pruning.calibration.id
        self.windows = results / layout.WINDOWS / windows.id
        self.record = results / layout.PRUNED / pruning.id / layout.RECORD
        self.checkpoint = self.record.with_name(layout.CHECKPOINT)
        self.parts = results / layout.MEASUREMENTS
        self.evaluation = results / layout.EVALUATIONS / run.evaluation.id / layout.EVALUATION

    def __call__(self, name: str, *arguments: object) -> None:
        before, sys.argv = sys.argv, [name, *map(str, arguments)]
        try:
            import_module(f"thanos.stages.{name}").main()
        finally:
            sys.argv = before

    def begin(self, name: str, *arguments: object) -> multiprocessing.Process:
        """The same in a process of its own."""

        def quietly() -> None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            self(name, *arguments)

        process = FORK.Process(target=quietly)
        process.start()
        return process

    def calibrate(self) -> list[object]:
        spec = json.dumps(self.run.pruning.calibration.to_json())
        return ["calibrate", spec, "--output", self.tokens]

    def corpora(self) -> list[object]:
        (windows,) = self.run.evaluation.windows
        return ["corpora", json.dumps(windows.to_json()), "--output", self.windows]

    def prune(self, spec: Path | None = None) -> list[object]:
        given = [spec or json.dumps(self.run.pruning.to_json()), "--calibration", self.tokens]
        return ["prune", *given, "--checkpoint", self.checkpoint, "--record", self.record]

    def evaluate(self) -> list[object]:
        given = [json.dumps(self.run.evaluation.to_json()), "--checkpoint", self.checkpoint]
        given += ["--windows", self.windows, "--parts", self.parts]
        return ["evaluate", *given, "--output", self.evaluation]


@pytest.fixture
def stages(command, tmp_path):
    run = run_of(command("method=wanda", "pattern=2:4", "tracking=disabled"))
    stages = Stages(tmp_path / "results", run)
    stages(*stages.calibrate())
    stages(*stages.corpora())
    return stages


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize(
    ("folder", "name", "consumer"),
    [
        ("tokens", "tokens.safetensors", "prune"),
        ("tokens", "manifest.json", "prune"),
        ("checkpoint", "model.safetensors", "evaluate"),
        ("checkpoint", "manifest.json", "evaluate"),
        ("windows", "windows.safetensors", "evaluate"),
        ("windows", "manifest.json", "evaluate"),
    ],
)
def test_no_stage_takes_what_is_damaged(stages, folder, name, consumer, damage):
    if consumer == "evaluate":
        stages(*stages.prune())
    damaged = getattr(stages, folder) / name
    damage(damaged)
    with pytest.raises(UserError, match="is damaged") as caught:
        stages(*getattr(stages, consumer)())
    assert str(damaged) in str(caught.value)
    assert "again" in str(caught.value)  # the remedy
    assert "\n" not in str(caught.value)
    assert not stages.evaluation.exists()
    assert stages.checkpoint.exists() == (consumer == "evaluate")


def test_a_damaged_result_is_no_spec(stages, tmp_path):
    stages(*stages.prune())
    copy = tmp_path / "copy.json"
    copy.write_text(stages.record.read_text())
    stages(*stages.prune(copy))
    copy.write_text(copy.read_text().replace('"2:4"', '"4:8"'))
    with pytest.raises(UserError, match=r"copy\.json is damaged"):
        stages(*stages.prune(copy))


def test_a_model_or_text_that_changes_after_it_was_planned_is_refused(stages):
    text = Path(stages.run.pruning.calibration.text.path)
    flip(text)
    for stage in ("calibrate", "corpora"):
        with pytest.raises(UserError, match=r"text\.txt has changed since this was planned"):
            stages(*getattr(stages, stage)())
    folder = Path(stages.run.pruning.model.path)
    flip(folder / "model.safetensors")
    with pytest.raises(UserError, match=f"model {folder} has changed since this was planned"):
        stages(*stages.prune())
    (folder / "generation_config.json").write_text("{}")
    flip(text)  # back
    with pytest.raises(UserError, match=f"model {folder} has changed since this was planned"):
        stages(*stages.calibrate())


@pytest.mark.parametrize("damage", [flip, truncate])
def test_results_of_a_suite_are_not_made_from_damaged_ones(stages, tmp_path, damage):
    stages(*stages.prune())
    stages(*stages.evaluate())
    suite = stages.results / layout.SUITES / "mine"
    runs, results = suite / layout.RUNS, suite / "results.csv"
    write_json(runs, listing(Suite("mine", "Mine", (stages.run,), ())))
    made = {kind: suite / f"{kind}.csv" for kind in ("layers", "windows")}
    layers, windows = ((f"--{kind}", file) for kind, file in made.items())
    collected = ["collect", runs, "--output", results, *layers, *windows]
    collected += ["--origin", suite / "origin.json"]
    for file in (stages.record, stages.evaluation, runs):
        content = file.read_bytes()
        damage(file)
        with pytest.raises(UserError, match=f"{file.name} (is damaged|has no content_sha256)"):
            stages(*collected)
        assert not results.exists()
        file.write_bytes(content)
    stages(*collected)
    damage(results)
    for name, more in (("tabulate", [*layers, *windows]), ("plot", layers)):
        with pytest.raises(UserError, match=r"results\.csv is damaged"):
            stages(name, results, "--runs", runs, *more, "--output", tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("stage", ["prune", "evaluate"])
def test_a_stage_killed_at_any_moment_leaves_nothing_that_looks_finished(stages, stage):
    if stage == "evaluate":
        stages(*stages.prune())
    for delay in (0.02, 0.1, 0.2, 0.3):
        process = stages.begin(*getattr(stages, stage)())
        time.sleep(delay)
        process.kill()
        process.join()
        for file in (stages.record, stages.evaluation, *stages.parts.glob("[!.]*.json")):
            if file.exists():
                read_json(file, sealed=True)
        if stages.checkpoint.exists():
            verify_manifest(stages.checkpoint, "rule prune")
    stages(*getattr(stages, stage)())
    result = {"prune": stages.record, "evaluate": stages.evaluation}[stage]
    assert read_json(result, sealed=True)


def test_doubled_jobs_of_one_run_do_not_damage_each_other(stages):
    twice = [stages.begin(*stages.prune()) for _ in range(3)]
    for process in twice:
        process.join()
    # One works, the others wait and find its work done.
    assert [process.exitcode for process in twice] == [0, 0, 0]
    verify_manifest(stages.checkpoint, "rule prune")
    record = read_json(stages.record, sealed=True)
    assert record["sparsity"] == 0.5
    twice = [stages.begin(*stages.evaluate()) for _ in range(3)]
    for process in twice:
        process.join()
    assert [process.exitcode for process in twice] == [0, 0, 0]
    assert read_json(stages.evaluation, sealed=True)["corpora"]
    assert len(list(stages.parts.iterdir())) == len(stages.run.evaluation.parts())
    assert list(stages.results.rglob(".*")) == []


def test_a_job_that_waited_takes_what_was_finished_meanwhile(stages, tmp_path):
    stages(*stages.prune())
    made = [
        (path, path.rename(tmp_path / path.name)) for path in (stages.checkpoint, stages.record)
    ]
    before = (tmp_path / "checkpoint").stat().st_ino
    log = tmp_path / "log"
    command = [sys.executable, "-m", "thanos.stages", *map(str, stages.prune())]
    with work_folder(stages.record.with_name("checkpoint.partial")), log.open("w") as stream:
        waiting = subprocess.Popen(command, stderr=stream)
        while "waiting for it" not in log.read_text():
            assert waiting.poll() is None, log.read_text()
            time.sleep(0.05)
        for path, aside in made:
            aside.rename(path)
    assert waiting.wait() == 0, log.read_text()
    assert "another process has finished" in log.read_text()
    assert stages.checkpoint.stat().st_ino == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 64 KiB, and root's to mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("stage", ["calibrate", "evaluate"])
def test_a_full_disk_is_one_line_and_leaves_nothing(stages, small_disk, stage):
    if stage == "calibrate":
        stages.tokens = small_disk / "tokens"
    else:
        stages(*stages.prune())
        stages.parts, stages.evaluation = small_disk / "parts", small_disk / "evaluation.json"
    arguments = getattr(stages, stage)()
    (small_disk / "ballast").write_bytes(bytes(64 * 1024 - 4096))
    result = subprocess.run(
        [sys.executable, "-m", "thanos.stages", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: no space left on device")
    assert "Traceback" not in result.stderr
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.name != "ballast"]
