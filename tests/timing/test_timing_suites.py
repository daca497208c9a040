"""Timing suites: their files fit the schema, their command measures them and leaves a report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thanos.errors import UserError
from thanos.paths import PROJECT
from thanos.pruning import parse_pattern
from thanos.timing.measure import KNOWN_METHODS
from thanos.timing.suite import load_timing, parse_shape

SUITES = sorted((PROJECT / "conf" / "timing").glob("*.yaml"))


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_shipped_suites_are_sound(file: Path) -> None:
    for grid in load_timing(file).grids:
        assert all(parse_shape(shape) for shape in grid.shapes)
        assert all(parse_pattern(pattern) for pattern in grid.patterns)
        assert set(grid.methods) <= set(KNOWN_METHODS)
        assert len(set(grid.methods)) == len(grid.methods)
        assert grid.block_sizes


def test_overrides_replace_what_the_file_says() -> None:
    suite = load_timing(PROJECT / "conf/timing/cpu.yaml", ["threads=1", "repeats=3"])
    assert (suite.threads, suite.repeats, suite.device) == (1, 3, "cpu")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("repeat=3", "repeat"),
        ("repeats=many", "many"),
        ("repeats=0", "repeats is 0"),
        ("threads=0", "threads is 0"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(UserError, match=f"cpu.yaml.*{message}"):
        load_timing(PROJECT / "conf/timing/cpu.yaml", [override])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        load_timing(tmp_path / "none.yaml")


@pytest.mark.parametrize("shape", ["64", "64x", "0x64", "64x64x64", "axb"])
def test_bad_shapes(shape: str) -> None:
    with pytest.raises(UserError, match=shape):
        parse_shape(shape)


def run(suite: Path, output: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thanos.stages.timing", str(suite), *overrides]
    return subprocess.run(
        [*command, "--output", str(output)], capture_output=True, text=True, cwd=PROJECT
    )


def test_the_command_writes_table_figures_and_rows(tmp_path: Path) -> None:
    result = run(PROJECT / "conf/timing/quick.yaml", tmp_path / "timing", "repeats=2")
    assert result.returncode == 0, result.stderr
    made = {file.name for file in (tmp_path / "timing").iterdir()}
    assert {"timing.json", "timing.md", "timing.html", "timing.tex", "timing.csv"} <= made
    assert {"timing-width.svg", "timing-block-size.svg"} <= made
    recorded = json.loads((tmp_path / "timing/timing.json").read_text())
    assert len(recorded["rows"]) == 2 * 2 * 3 * 5
    made = recorded["provenance"]
    assert made["versions"]["torch"]
    assert "thanos.timing.measure" in made["fingerprint"]["code"]
    assert (made["used"]["device"], made["used"]["threads"]) == ("cpu", 1)
    for row in recorded["rows"]:
        assert row["repeats"] == 2
        assert row["threads"] == 1
        if row["method"] == "pseudocode-thanos":
            assert row["pseudocode_ratio"] == 1.0
    text = re.sub(r"\s+", " ", (tmp_path / "timing/timing.md").read_text())
    assert "64 × 64, unstructured" in text.lower()
    assert "× pseudocode" in text


def test_an_unknown_method_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text('grids: [{shapes: ["8x8"], patterns: ["0.5"], methods: [obs]}]')
    result = run(suite, tmp_path / "timing")
    assert result.returncode != 0
    assert result.stderr.strip().splitlines()[-1].startswith("error: unknown method 'obs'")
    assert not (tmp_path / "timing").exists()
