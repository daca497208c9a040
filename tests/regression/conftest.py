"""Cells of the regression suite's small variant, run stage by stage in forks of this process.

The workflow runs the same commands; here Python is loaded once for all of them.
"""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from thanos.config import dumps
from thanos.suites import load_suite

GOLDEN = Path(__file__).parent.parent.parent / "results" / "reference" / "golden.json"
METHODS = ("dense", "wanda", "thanos")
FORK = multiprocessing.get_context("fork")


def stage(name: str, *arguments: object) -> None:
    """Run a stage as its command would."""
    sys.argv = [name, *map(str, arguments)]
    import_module(f"thanos.stages.{name}").main()


def make_runs(folder: Path) -> None:
    """The cells in which every seeded fault shows, laid out as the workflow does."""
    for run in load_suite("regression", quick=True).runs:
        if run.config.method.name not in METHODS or run.config.outlier_fraction:
            continue
        results = folder / run.identifier
        tokens = {"evaluation": folder / f"{run.evaluation}"}
        configs = {"evaluation": run.config.for_evaluation()}
        if run.calibration:
            tokens["calibration"] = folder / f"{run.calibration}"
            configs["calibration"] = run.config.for_calibration()
        for use, maker in (("evaluation", "corpora"), ("calibration", "calibrate")):
            if use in tokens and not tokens[use].exists():
                config = tokens[use].with_suffix(".yaml")
                stage("configure", "--resolved", dumps(configs[use]), "--output", config)
                stage(maker, config, "--output", tokens[use])
        config = results / "config.yaml"
        stage("configure", "--resolved", dumps(run.config), "--output", config)
        given = [config]
        if run.calibration:
            made = ["--checkpoint", results / "checkpoint", "--record", results / "pruning.json"]
            stage("prune", config, "--calibration", tokens["calibration"], *made)
            given += ["--checkpoint", results / "checkpoint"]
        given += ["--windows", tokens["evaluation"], "--perplexity", results / "perplexity.json"]
        given += ["--zero-shot", results / "zero_shot.json", "--size", results / "size.json"]
        stage("evaluate", *given)


def in_fork(work: Callable[[], None], log: Path) -> int:
    """Exit status of `work` in a process of its own, whose output goes to `log`."""

    def quietly() -> None:
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        work()
        sys.stdout.flush()

    process = FORK.Process(target=quietly)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="session")
def accepted(tmp_path_factory):
    """Golden values of the tree as it is, with the tolerances of the committed ones."""
    folder = tmp_path_factory.mktemp("golden")
    golden = folder / "golden.json"

    def accept() -> None:
        make_runs(folder / "runs")
        runs = (folder / "runs").glob("*/*/*-????????")
        stage("accept", *runs, "--golden", golden, "--template", GOLDEN)

    assert in_fork(accept, folder / "log") == 0, (folder / "log").read_text()
    return golden


@pytest.fixture
def regress(accepted, tmp_path):
    """`regress(fault)` runs the suite with a fault applied; exit status and what it printed."""

    def run(fault: Callable[[], None] = lambda: None, threads: int = 1) -> tuple[int, str]:
        def work() -> None:
            torch.set_num_threads(threads)
            fault()
            make_runs(tmp_path / "runs")
            runs = (tmp_path / "runs").glob("*/*/*-????????")
            reports = ["--markdown", tmp_path / "r.md", "--junit", tmp_path / "r.xml"]
            with contextlib.redirect_stderr(sys.stdout):
                stage("regress", *runs, "--golden", accepted, *reports)

        status = in_fork(work, tmp_path / "log")
        return status, (tmp_path / "log").read_text()

    return run
