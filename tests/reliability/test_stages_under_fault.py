"""Stages of the workflow: files are damaged, jobs killed or doubled, the disk is full."""

import multiprocessing
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from thanos.artifacts import read_json, verify_manifest
from thanos.config import dumps, resolve
from thanos.errors import UserError
from thanos.models import work_folder

FORK = multiprocessing.get_context("fork")


class Stages:
    """The stages of one run on the small model, as the rules call them."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides
        self.config, self.tokens = folder / "config.yaml", folder / "tokens"
        self.windows, self.checkpoint = folder / "windows", folder / "checkpoint"

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

    def prepare(self) -> None:
        resolved = dumps(resolve(self.overrides))
        self("configure", "--resolved", resolved, "--output", self.config)
        self("calibrate", self.config, "--output", self.tokens)
        self("corpora", self.config, "--output", self.windows)

    def prune(self) -> list[object]:
        made = ["--checkpoint", self.checkpoint, "--record", self.folder / "pruning.json"]
        return ["prune", self.config, "--calibration", self.tokens, *made]

    def evaluate(self) -> list[object]:
        given = ["--checkpoint", self.checkpoint, "--windows", self.windows]
        given += ["--perplexity", self.folder / "perplexity.json"]
        given += [
            "--zero-shot",
            self.folder / "zero_shot.json",
            "--size",
            self.folder / "size.json",
        ]
        return ["evaluate", self.config, *given]


@pytest.fixture
def stages(command, tmp_path):
    folder = tmp_path / "runs" / "stranger" / "2-4" / "wanda-01234567"
    stages = Stages(folder, command("method=wanda", "pattern=2:4", "tracking=disabled"))
    stages.prepare()
    return stages


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, truncate])
@pytest.mark.parametrize(
    ("damaged", "consumer"),
    [
        ("config.yaml", "prune"),
        ("tokens/tokens.safetensors", "prune"),
        ("tokens/manifest.json", "prune"),
        ("checkpoint/model.safetensors", "evaluate"),
        ("windows/windows.safetensors", "evaluate"),
    ],
)
def test_no_stage_takes_what_is_damaged(stages, damaged, consumer, damage):
    if consumer == "evaluate":
        stages(*stages.prune())
    damage(stages.folder / damaged)
    with pytest.raises(UserError, match="is damaged") as caught:
        stages(*getattr(stages, consumer)())
    assert damaged in str(caught.value)
    assert "again" in str(caught.value)  # the remedy
    assert "\n" not in str(caught.value)
    assert not (stages.folder / "perplexity.json").exists()
    assert stages.checkpoint.exists() == (consumer == "evaluate")


def test_results_of_a_suite_are_not_made_from_damaged_ones(stages, tmp_path):
    stages(*stages.prune())
    stages(*stages.evaluate())
    results = tmp_path / "results.csv"
    others = ["--layers", tmp_path / "layers.csv", "--windows", tmp_path / "windows.csv"]
    collected = ["collect", "--output", results, *others, stages.folder]
    for name in ("pruning.json", "perplexity.json", "zero_shot.json", "config.yaml"):
        content = (stages.folder / name).read_bytes()
        truncate(stages.folder / name)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            stages(*collected)
        assert not results.exists()
        (stages.folder / name).write_bytes(content)
    stages(*collected)
    flip(results)
    for name, more in (("tabulate", others), ("plot", others[:2])):
        with pytest.raises(UserError, match=r"results\.csv is damaged"):
            stages(name, results, *more, "--output", tmp_path / name)
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
        for file in stages.folder.glob("[!.]*.json"):
            read_json(file, sealed=True)
        if stages.checkpoint.exists():
            verify_manifest(stages.checkpoint, "rule prune")
    stages(*getattr(stages, stage)())
    name = {"prune": "pruning.json", "evaluate": "perplexity.json"}[stage]
    assert read_json(stages.folder / name, sealed=True)


def test_doubled_jobs_of_one_run_do_not_damage_each_other(stages):
    twice = [stages.begin(*stages.prune()) for _ in range(3)]
    for process in twice:
        process.join()
    # One works, the others wait and find its work done.
    assert [process.exitcode for process in twice] == [0, 0, 0]
    verify_manifest(stages.checkpoint, "rule prune")
    record = read_json(stages.folder / "pruning.json", sealed=True)
    assert record["sparsity"] == 0.5
    twice = [stages.begin(*stages.evaluate()) for _ in range(3)]
    for process in twice:
        process.join()
    assert [process.exitcode for process in twice] == [0, 0, 0]
    assert read_json(stages.folder / "perplexity.json", sealed=True)["corpora"]
    leftovers = [path.name for path in stages.folder.iterdir() if path.name.startswith(".")]
    assert leftovers == []


def test_a_job_that_waited_takes_what_was_finished_meanwhile(stages, tmp_path):
    record = stages.folder / "pruning.json"
    stages(*stages.prune())
    made = [(path, path.rename(tmp_path / path.name)) for path in (stages.checkpoint, record)]
    before = (tmp_path / "checkpoint").stat().st_ino
    log = tmp_path / "log"
    command = [sys.executable, "-m", "thanos.stages", *map(str, stages.prune())]
    with work_folder(stages.folder / "checkpoint.partial"), log.open("w") as stream:
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
    output = small_disk / "output"
    arguments = ["calibrate", stages.config, "--output", output]
    if stage == "evaluate":
        stages(*stages.prune())
        results = ["--perplexity", output / "perplexity.json", "--zero-shot", output / "z.json"]
        arguments = [*stages.evaluate()[:6], *results, "--size", output / "size.json"]
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
