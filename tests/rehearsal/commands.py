"""Snakemake as a user starts it: before the cluster, where there is network, and on it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from thanos.paths import PROJECT

# The models are small, and 128 windows of 2,048 tokens take a minute of one core.
FEWER_WINDOWS = "calibration.windows=8"


def snakemake(
    target: str,
    folder: Path,
    environment: dict[str, str],
    *options: str,
    profile: str = "default",
    **config: str,
) -> subprocess.CompletedProcess[str]:
    """Run a target in a folder of its own; `config` is what follows `--config`."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    command += ["--profile", str(PROJECT / "profiles" / profile), *options, target]
    command += ["--directory", str(folder), "--config", "show=false"]
    command += [f"{key}={value}" for key, value in config.items()]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def offline() -> dict[str, str]:
    """Variables of a machine that knows no hub, with one thread per job."""
    unset = {"HF_ENDPOINT", "HF_TOKEN", "HF_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def check_suite(folder: Path, runs: int) -> str:
    """That a suite is all there: every run, every task, no number missing; return its table."""
    suite = folder / "results" / "suites" / "paper"
    listed = json.loads((suite / "runs.json").read_text())["runs"]
    assert len(listed) == runs
    with (suite / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        assert row["value"] not in ("", "nan"), row
        measured.setdefault(row["run"], set()).add((row["metric"], row["dataset"]))
    assert len(measured) == runs
    tasks = ("winogrande", "openbookqa", "boolq", "piqa", "hellaswag", "arc_easy", "arc_challenge")
    wanted = {("perplexity", "wikitext2"), *(("acc", task) for task in tasks)}
    assert all(wanted <= found for found in measured.values())
    tables = sorted((suite / "tables").glob("main*.md"))  # a wide table is one per metric
    return "".join(table.read_text() for table in tables)
