"""Targets that nothing makes are named, with what there is, before anything is planned."""

from functools import partial

import pytest

from thanos.workflow.targets import asked_targets

from .conftest import Workflow

also = partial(pytest.param, marks=pytest.mark.slow)  # each starts Snakemake


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("real-seed", "nothing makes real-seed (did you mean real-seeds?); targets are ablation-"),
        also("zzz", "nothing makes zzz; targets are ablation-"),
        also(
            "{results}/suites/dem/report.html", "nothing makes {results}/suites/dem/report.html; "
        ),
        also(
            "{results}/pruned/wanda-2-4-xyz/pruning.json", "nothing makes {results}/pruned/wanda-"
        ),
        (
            "{results}/evaluations/dense-0123456789ab/evaluation.json",
            "no suite has evaluations/dense-0123456789ab; was the configuration changed?",
        ),
    ],
)
def test_a_target_that_nothing_makes(tmp_path, target, said):
    workflow = Workflow(tmp_path)
    workflow.results = tmp_path / "made"
    result = workflow(target.format(results="made"), overrides="", check=False)

    printed = result.stdout + result.stderr
    assert result.returncode != 0
    assert said.format(results="made") in printed
    assert "Building DAG" not in printed


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["/bin/snakemake", "-n", "demo", "results/a"], ["demo", "results/a"]),
        (["/lib/snakemake/__main__.py", "--config", "quick=true", "--", "p"], ["p"]),
        (["/bin/snakemake", "--profile", "x", "--slurm-logdir", "logs", "paper"], ["paper"]),
        (["/bin/snakemake"], []),
        (["/bin/pytest", "tests"], []),
    ],
)
def test_what_a_command_line_asks_for(arguments, targets):
    assert asked_targets(arguments) == targets
