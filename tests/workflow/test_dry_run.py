"""Suites that are too large to run are checked as far as their jobs."""

import pytest
from gguf_file import write_gguf

from .conftest import PROJECT, Workflow


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path)


def test_the_paper_suite_lists_its_runs_offline(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "snakemake", "-n", "paper", "--directory", str(tmp_path)]
    command += ["--snakefile", str(PROJECT / "Snakefile")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = dict(line.split() for line in output.splitlines() if len(line.split()) == 2)
    assert counts["prune"] == str(18 * 19)
    assert counts["evaluate"] == str(18 * 20)


def test_a_bad_override_is_refused_before_any_job(workflow):
    result = workflow("demo", overrides="method.dampening=0.1", check=False)
    assert result.returncode != 0
    assert "unknown key 'method.dampening'" in result.stdout + result.stderr
    assert not workflow.results.exists()


@pytest.mark.parametrize("option", ["threads=auto", "threads=0", "gpus=-1"])
def test_an_option_that_is_no_such_number_is_refused(workflow, option):
    result = workflow("demo", option, check=False)
    assert result.returncode != 0
    assert f"--config {option}: expected a whole number" in result.stdout + result.stderr
    assert not workflow.results.exists()


def test_a_model_in_a_gguf_file_is_made_once_for_all_runs(workflow, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    model = f"model=hf model.path={tmp_path / 'tiny.gguf'} method=wanda,thanos pattern=2:4"
    jobs = workflow.jobs("demo", overrides=f"{model} outlier_fraction=0")
    assert (jobs["model"], jobs["prune"], jobs["evaluate"]) == (1, 2, 3)


def test_a_recovery_stands_between_pruning_and_evaluation(workflow):
    jobs = workflow.jobs("recovery", overrides="")
    # So small a variant trains on the very windows that it calibrates on.
    assert (jobs["calibration"], jobs["prune"], jobs["recover"], jobs["evaluate"]) == (1, 1, 4, 6)


def test_timing_is_one_job(workflow):
    assert workflow.jobs("timing", overrides="") == {"timing": 1, "total": 1}
