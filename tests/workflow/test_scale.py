"""Ten thousand runs: composed, planned and reported like ten."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from results_folder import ResultsFolder

from thanos import layout
from thanos.artifacts import write_json
from thanos.workflow import suite_files, suites
from thanos.workflow.catalog import listing

from .conftest import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RUNS = 10_000
SUITE = {
    "title": "Ten thousand runs",
    "axis": "method.damping",
    "common": {"model": "doc-llama", "calibration": "docstrings", "evaluation": "perplexity"},
    "runs": [
        {"method": "dense"},
        {
            "method": ["sparsegpt", "thanos"],
            "pattern": [f"unstructured:{share / 10}" for share in range(3, 8)],
            "method.damping": [round(0.0001 * n, 6) for n in range(1, 1001)],
        },
    ],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project with a suite of its own."""
    folder = tmp_path_factory.mktemp("scale") / "project"
    folder.mkdir()
    for part in ("Snakefile", "rules", "thanos", "profiles", "report", "envs", "results"):
        (folder / part).symlink_to(PROJECT / part)
    (folder / "conf").mkdir()
    for part in (PROJECT / "conf").iterdir():
        if part.name != "suite":
            (folder / "conf" / part.name).symlink_to(part)
    (folder / "conf" / "suite").mkdir()
    (folder / "conf" / "suite" / "demo.yaml").write_text(yaml.safe_dump(SUITE))
    return folder


@pytest.fixture(scope="module")
def suite(project):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(suite_files, "CONF", project / "conf")
        started = time.perf_counter()
        loaded = suites.load_suite("demo")
        print(f"{len(loaded.runs)} runs composed in {time.perf_counter() - started:.1f} s")
    assert len(loaded.runs) == RUNS + 1
    return loaded


def test_it_is_planned_within_two_gigabytes(project, suite, tmp_path):
    program = (
        "import sys, pathlib; from thanos.workflow import suite_files; "
        f"suite_files.CONF = pathlib.Path({str(project / 'conf')!r}); "
        "from snakemake.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "--snakefile", str(PROJECT / "Snakefile"), "-n"]
    command += ["demo", "--directory", str(tmp_path), "--quiet", "all"]
    started = time.perf_counter()
    log, peak = tmp_path / "log", 0
    with log.open("w") as output:
        process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, process.memory_info().rss)
            time.sleep(0.2)
    assert process.returncode == 0, log.read_text()[-2000:]
    print(f"planned in {time.perf_counter() - started:.0f} s with {peak / 2**20:.0f} MiB")
    assert peak < 2 * 2**30


def test_collect_and_what_follows_take_ten_thousand_results(suite, tmp_path):
    results = ResultsFolder(tmp_path)
    for number, run in enumerate(suite.runs):
        results.finish(run, 20 + 0.001 * number)
    folder = tmp_path / layout.SUITES / "demo"
    write_json(folder / layout.RUNS, listing(suite))
    runs, table, layers = (str(folder / n) for n in (layout.RUNS, "results.csv", "layers.csv"))
    windows, origin = str(folder / "windows.csv"), str(folder / "origin.json")
    for stage, *arguments in (
        (
            "collect",
            runs,
            "--output",
            table,
            "--layers",
            layers,
            "--windows",
            windows,
            "--origin",
            origin,
        ),
        (
            "tabulate",
            table,
            "--runs",
            runs,
            "--layers",
            layers,
            "--windows",
            windows,
            "--output",
            str(folder / "tables"),
        ),
        ("plot", table, "--runs", runs, "--layers", layers, "--output", str(folder / "figures")),
        (
            "report",
            "--suite",
            str(folder),
            "--origin",
            origin,
            "--output",
            str(folder / "report.html"),
        ),
    ):
        started = time.perf_counter()
        command = [sys.executable, "-m", f"thanos.stages.{stage}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
        assert done.returncode == 0, done.stderr
        print(f"{stage}: {time.perf_counter() - started:.0f} s")
    frame = pd.read_csv(Path(table))
    assert frame["run"].nunique() == RUNS + 1
    assert frame[frame["metric"] == "perplexity"]["nominal_sparsity"].nunique() == 6
