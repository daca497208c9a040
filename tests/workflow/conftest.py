"""Runs the real workflow in a temporary folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
# Three runs of the smallest demo: dense, wanda and thanos on one model.
TINY = (
    "model=doc-llama method=wanda,thanos pattern=2:4 outlier_fraction=0 evaluation.limit=8 "
    "evaluation.efficiency=true"
)


class Workflow:
    """`snakemake` with its own working directory and state.

    The results folder is called as people call theirs: spaces, braces, letters of all kinds.
    """

    def __init__(self, directory: Path, project: Path = PROJECT, overrides: str = TINY) -> None:
        self.directory = directory
        self.project = project
        self.overrides = overrides
        self.results = directory / "my results {x} ü"

    def __call__(self, *arguments: str, overrides: str | None = None, check: bool = True):
        options, others = [a for a in arguments if "=" in a], [a for a in arguments if "=" not in a]
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(self.project / "Snakefile"),
        ]
        command += ["--profile", str(PROJECT / "profiles" / "default"), "--cores", "2"]
        command += ["--directory", str(self.directory), *others]
        overrides = self.overrides if overrides is None else overrides
        command += ["--config", "quick=true", f"results={self.results.name}", *options]
        command += [f"overrides={overrides}"] if overrides else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        if check and result.returncode != 0:
            pytest.fail(result.stdout + result.stderr)
        return result

    def jobs(self, *arguments: str, overrides: str | None = None) -> dict[str, int]:
        """The jobs that a dry run would do, by rule."""
        output = self("--dry-run", *arguments, overrides=overrides).stdout
        table = output.split("Job stats:")[1].split("\n\n")[0] if "Job stats:" in output else ""
        rows = [line.split() for line in table.splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def files(self, kind: str) -> dict[str, Path]:
        """Result files of a kind, by the readable part of what they are of."""
        found = self.results.glob(f"{kind}/*/*.json")
        return {file.parent.name.rpartition("-")[0]: file for file in found}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny demo, done once for all tests that only look at it."""
    workflow = Workflow(tmp_path_factory.mktemp("workflow"))
    workflow.output = workflow("demo")
    return workflow
