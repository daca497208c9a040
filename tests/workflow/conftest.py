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
    """`snakemake` with its own working directory, state and results."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.results = directory / "results"

    def __call__(self, *arguments: str, overrides: str = TINY, check: bool = True):
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
        command += ["--profile", str(PROJECT / "profiles" / "default"), "--cores", "2"]
        command += ["--directory", str(self.directory), *arguments]
        command += ["--config", "quick=true", f"overrides={overrides}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        if check and result.returncode != 0:
            pytest.fail(result.stdout + result.stderr)
        return result

    def jobs(self, *arguments: str, overrides: str = TINY) -> dict[str, int]:
        """The jobs that a dry run would do, by rule."""
        output = self("--dry-run", *arguments, overrides=overrides).stdout
        table = output.split("Job stats:")[1].split("\n\n")[0] if "Job stats:" in output else ""
        rows = [line.split() for line in table.splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}

    def runs(self) -> dict[str, Path]:
        """Folders of the finished runs, by method."""
        folders = self.results.glob("runs/*/*/*")
        return {folder.name.rpartition("-")[0]: folder for folder in folders}


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The tiny demo, done once for all tests that only look at it."""
    workflow = Workflow(tmp_path_factory.mktemp("workflow"))
    workflow.output = workflow("demo")
    return workflow
