"""Cells of the regression suite's small variant, run stage by stage in forks of this process.

The workflow runs the same commands; here Python is loaded once for all of them.
"""

import contextlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

from thanos import layout
from thanos.artifacts import write_json
from thanos.workflow.catalog import listing, things_of
from thanos.workflow.suites import load_suite

GOLDEN = Path(__file__).parent.parent.parent / "results" / "reference" / "golden.json"
METHODS = ("dense", "wanda", "thanos")
FORK = multiprocessing.get_context("fork")


def stage(name: str, *arguments: object) -> None:
    """Run a stage as its command would."""
    sys.argv = [name, *map(str, arguments)]
    import_module(f"thanos.stages.{name}").main()


def make_runs(results: Path) -> Path:
    """The cells in which every seeded fault shows, laid out as the workflow does; their list."""
    suite = load_suite("regression", size="quick")
    runs = [
        run
        for run in suite.runs
        if run.columns["method"] in METHODS and not run.columns["outlier_fraction"]
    ]
    things = things_of(runs)
    for (kind, name), thing in things.items():  # in the order in which they need each other
        given, home = [json.dumps(thing.spec.to_json())], results / kind / name
        if kind == layout.CALIBRATION:
            stage("calibrate", *given, "--output", home)
        elif kind == layout.WINDOWS:
            stage("corpora", *given, "--output", home)
        elif kind == layout.PRUNED:
            given += ["--calibration", results / layout.CALIBRATION / thing.spec.calibration.id]
            given += ["--checkpoint", home / layout.CHECKPOINT]
            stage("prune", *given, "--record", home / layout.RECORD)
        else:
            given += ["--windows", *(results / layout.WINDOWS / w.id for w in thing.spec.windows)]
            given += ["--parts", results / layout.MEASUREMENTS]
            if (pruning := thing.spec.pruning) is not None:
                given += ["--checkpoint", results / layout.PRUNED / pruning.id / layout.CHECKPOINT]
            stage("evaluate", *given, "--output", home / layout.EVALUATION)
    listed = results / layout.SUITES / suite.name / layout.RUNS
    write_json(listed, listing(replace(suite, runs=tuple(runs))))
    return listed


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
        runs = make_runs(folder / "results")
        stage("accept", runs, "--golden", golden, "--template", GOLDEN)

    assert in_fork(accept, folder / "log") == 0, (folder / "log").read_text()
    return golden


@pytest.fixture
def regress(accepted, tmp_path):
    """`regress(fault)` runs the suite with a fault applied; exit status and what it printed."""

    def run(fault: Callable[[], None] = lambda: None, threads: int = 1) -> tuple[int, str]:
        def work() -> None:
            torch.set_num_threads(threads)
            fault()
            runs = make_runs(tmp_path / "results")
            reports = ["--markdown", tmp_path / "r.md", "--junit", tmp_path / "r.xml"]
            with contextlib.redirect_stderr(sys.stdout):
                stage("regress", runs, "--golden", accepted, *reports)

        status = in_fork(work, tmp_path / "log")
        return status, (tmp_path / "log").read_text()

    return run
