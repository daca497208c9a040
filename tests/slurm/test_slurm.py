"""The demo's quick suite on a two-node Slurm, whatever clusters do meanwhile."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .conftest import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

# Polls faster than the profile does, whose intervals suit jobs of hours.
FAST = ("--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "15")
UNTRACKED = "tracking=disabled"
QUICK = f"{UNTRACKED} evaluation.limit=8"
TINY = f"{QUICK} method=wanda,thanos pattern=2:4 outlier_fraction=0"

# At what cost a result was made, not what it is.
COSTS = {
    *("seconds", "seconds_by_part", "peak_memory_bytes", "memory_plan", "resumed_blocks"),
    "content_sha256",
}


def outcome(folder: Path) -> dict[str, object]:
    """Every pruning, evaluation and measurement without times and other circumstances."""
    results = folder / "results"
    kinds = ("pruned/*/pruning.json", "evaluations/*/evaluation.json", "measurements/*.json")
    return {
        str(file.relative_to(results)): lasting(json.loads(file.read_text()))
        for kind in kinds
        for file in sorted(results.glob(kind))
    }


def lasting(values: Any) -> Any:
    """JSON values without costs, however deep they lie; of provenances the fingerprint."""
    if isinstance(values, list):
        return [lasting(value) for value in values]
    if not isinstance(values, dict):
        return values
    kept = {key: value for key, value in values.items() if key not in COSTS}
    if "provenance" in kept:
        kept["provenance"] = kept["provenance"]["fingerprint"]
    return {key: lasting(value) for key, value in kept.items()}


def finish(process: subprocess.Popen) -> str:
    process.wait()
    log = process.log.read_text()
    assert process.returncode == 0, log
    return log


def submitted(log: str) -> dict[str, str]:
    """Rule and wildcards of every job by Snakemake's number, from the paths of Slurm's logs."""
    found = re.findall(r"Job (\d+) has been submitted .*/slurm_logs/(.+)/\d+\.log", log)
    return dict(found)


def finished(log: str) -> set[str]:
    """The jobs that Snakemake knew to be finished."""
    jobs = submitted(log)
    numbers = re.findall(r"Finished jobid: (\d+)", log)
    return {jobs[number] for number in numbers if number in jobs}


def times(folder: Path) -> dict[Path, int]:
    """When the list of runs, by Snakemake itself, and each measurement was written."""
    kinds = ("suites/*/runs.json", "measurements/*.json")
    files = [file for kind in kinds for file in folder.glob(f"results/{kind}")]
    return {file: file.stat().st_mtime_ns for file in files}


def verify(start, name: str, overrides: str) -> None:
    process = start(name, "default", "verify", "--cores", "1", overrides=overrides)
    assert "0 damaged, 0 missing, 0 stale, 0 orphaned" in finish(process)


def test_with_a_job_cancelled_and_a_node_lost_all_results_are_those_of_one_machine(
    slurm: Slurm, start
) -> None:
    local = start("local", "default", "demo", "--cores", "2", overrides=QUICK)
    finish(local)
    process = start("cluster", "slurm", "demo", *FAST, overrides=QUICK)
    results = process.folder / "results"
    slurm.wait(lambda: list(results.glob("pruned/*/pruning.json")), "the first results", 900)
    cancelled = slurm.started()
    subprocess.run(["scancel", cancelled], check=True)
    lost = slurm.started("--nodelist=node2")
    slurm.lose("node2")
    slurm.wait(lambda: slurm.down("node2"), "node2 is lost", 120)
    log = finish(process)
    assert (slurm.ended(cancelled), slurm.ended(lost)) == ("CANCELLED", "NODE_FAIL")
    assert log.count("Trying to restart job") >= 2
    slurm.run("node2", ["slurmd", "-D", "-N", "node2"])

    expected = outcome(local.folder)
    assert outcome(process.folder) == expected
    assert len(expected) == 10 + 11 + 11 * 3  # a dense run has no pruning.json
    verify(start, "cluster", QUICK)


def test_killed_and_started_again_as_documented_nothing_finished_is_done_twice(
    slurm: Slurm, start
) -> None:
    process = start("cluster", "slurm", "demo", *FAST, overrides=TINY)
    slurm.wait(
        lambda: len(finished(process.log.read_text())) > 3 and slurm.jobs(),
        "finished jobs while others run",
        900,
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = times(process.folder)
    assert process.folder / "results/suites/demo-quick/runs.json" in written
    assert slurm.jobs(), "jobs of the cluster go on"

    # docs/cluster.md: cancel what is left of it, unlock, run again.
    subprocess.run(
        "squeue --noheader --format='%i %j' | awk '$2 ~ /^thanos_/ {print $1}'"
        " | xargs --no-run-if-empty scancel",
        shell=True,
        check=True,
    )
    slurm.wait(lambda: not slurm.jobs(), "no job of the killed workflow")
    finish(start("cluster", "slurm", "demo", "--unlock", overrides=TINY))
    log = finish(start("cluster", "slurm", "demo", *FAST, overrides=TINY))

    done = finished(process.log.read_text())
    assert len(done) > 3
    assert done.isdisjoint(submitted(log).values())
    assert {file: times(process.folder)[file] for file in written} == written
    assert len(outcome(process.folder)) == 2 + 3 + 3 * 3
    verify(start, "cluster", TINY)


def test_a_job_above_its_memory_limit_is_killed_and_gets_more(slurm: Slurm, start) -> None:
    overrides = f"{UNTRACKED} method=wanda pattern=2:4 evaluation.tasks=[]"
    # Loading torch alone takes more than the first attempt's share, the third's is plenty.
    little = ("--set-resources", "prune:mem_mb=400*attempt")
    process = start("cluster", "slurm", "demo", *FAST, *little, overrides=overrides)
    finish(process)

    said = [
        file.read_text()
        for file in process.folder.glob(".snakemake/slurm_logs/rule_prune/**/*.log")
    ]
    assert any("exceeded memory limit" in text for text in said)
    verify(start, "cluster", overrides)
