"""Two workflows at the same time in one folder, which want some of the same runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thanos.workflow.suites import load_suite
from thanos.workflow.verification import Verification

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROJECT = Path(__file__).parent.parent.parent
COMMON = "pattern=2:4 outlier_fraction=0 evaluation.tasks=[] tracking=disabled"


def begin(folder: Path, *arguments: str, methods: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "demo", "--snakefile", str(PROJECT / "Snakefile")]
    command += ["--profile", str(PROJECT / "profiles" / "default"), "--cores", "1"]
    command += ["--directory", str(folder), *arguments, "--config", "quick=true"]
    command += [f"overrides={COMMON} method={methods}"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_workflows_that_get_in_each_others_way_damage_nothing(tmp_path):
    # --nolock: without it Snakemake refuses the second, as the next test shows.
    both = [
        begin(tmp_path, "--nolock", methods="magnitude,wanda"),
        begin(tmp_path, "--nolock", methods="wanda,thanos"),
    ]
    # One may fail at the run that both want, whose checkpoint the other prunes or has removed.
    said = [process.communicate()[0] for process in both]
    assert 0 in [process.returncode for process in both], said
    results = tmp_path / "results"
    for methods in ("magnitude,wanda", "wanda,thanos"):
        again = begin(tmp_path, "--nolock", methods=methods)
        output = again.communicate()[0]
        assert again.returncode == 0, output
        suite = load_suite("demo", [*COMMON.split(), f"method={methods}"], size="quick")
        verification = Verification(suite, results, results / "suites" / "demo-quick")
        found = [str(f) for f in verification.findings() if f.kind != "orphaned"]
        assert found == []
    made = {kind: len(list((results / kind).iterdir())) for kind in ("pruned", "evaluations")}
    assert made == {"pruned": 3, "evaluations": 4}  # magnitude, wanda, thanos; dense as well


def test_snakemake_refuses_a_second_workflow_for_the_same_results(tmp_path):
    first = begin(tmp_path, methods="wanda")
    locks = tmp_path / ".snakemake" / "locks"
    while not (locks.is_dir() and any(locks.iterdir())):
        assert first.poll() is None
    second = begin(tmp_path, methods="wanda")
    assert "cannot be locked" in second.communicate()[0]
    assert second.returncode != 0
    assert first.wait() == 0
