"""The wheel, in an environment without the checkout: configuration, rules and models inside."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from thanos.paths import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def thanos(tmp_path_factory):
    """Runs the installed command in a folder of its own; the libraries are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PROJECT, source, ignore=shutil.ignore_patterns(".*", "results", "__pycache__"))
    shutil.copytree(PROJECT / "results" / "reference", source / "results" / "reference")
    # From the source distribution, as an index would have it.
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder / "dist")]
    subprocess.run([*pip, str(source)], check=True)
    (wheel,) = (folder / "dist").glob("*.whl")
    shutil.rmtree(source)
    place = folder / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments):
        command = [place / "bin" / "thanos", *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run.folder, run.site = elsewhere, site
    return run


def test_what_it_shows(thanos):
    assert thanos("--version").strip() == "thanos 0.1.0"
    assert "name: wanda" in thanos("--cfg", "job", "method=wanda")
    assert "doc-llama" in thanos("--help")
    assert Path(thanos.site, "thanos", "project", "Snakefile").is_file()


def test_a_run(thanos):
    thanos(
        *("method=magnitude", "pattern=2:4", "evaluation=perplexity", "evaluation.max_windows=2"),
        *("layer_errors=false", "output_dir=out"),
    )
    assert (thanos.folder / "out" / "checkpoint" / "model.safetensors").is_file()


def test_a_sweep_and_a_suite(thanos):
    table = thanos(
        *("-m", "method=magnitude,wanda", "pattern=2:4", "calibration.windows=2"),
        *("evaluation=perplexity", "evaluation.max_windows=2", "tracking=disabled"),
        *("--name", "mine", "--results", "my results"),
    )
    assert "Magnitude" in table
    assert "Wanda" in table
    assert (thanos.folder / "my results" / "suites" / "mine" / "report.html").is_file()
    assert "total" in thanos("suite", "mine", "-n", "--results", "my results", "seed=1")
    assert "prune" in thanos("suite", "demo", "--quick", "-n")
