"""Timing suites: their files fit the schema, their command measures them and leaves a report."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from thanos.config import resolve
from thanos.errors import UserError
from thanos.paths import PROJECT
from thanos.pruning import parse_pattern
from thanos.timing.measure import KNOWN_METHODS
from thanos.timing.suite import load_timing, parse_shape
from thanos.timing.whole import OperationCounter, time_pruning

SUITES = sorted((PROJECT / "conf" / "timing").glob("*.yaml"))


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_shipped_suites_are_sound(file: Path) -> None:
    suite = load_timing(file)
    for own in suite.prunings:
        assert resolve([*suite.common, *own]).method.name in KNOWN_METHODS
    for grid in suite.grids:
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


def timed(suite: str, folder: Path) -> list[dict[str, Any]]:
    """What a suite finds of its prunings."""
    (folder / "suite.yaml").write_text(suite)
    result = run(folder / "suite.yaml", folder / "timing")
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads((folder / "timing/timing.json").read_text())[
        "prunings"
    ]
    return found


@pytest.mark.slow
def test_whole_prunings_are_timed_by_part_beside_their_arithmetic(tmp_path: Path) -> None:
    (row,) = timed(
        "{threads: 1, repeats: 1, common: [model=doc-llama, calibration.windows=2], prunings: "
        '[[method=wanda, "pattern=2:4", layer_errors=false, model.context=64]]}',
        tmp_path,
    )
    assert 0 < sum(row["parts"].values()) < row["seconds"]  # which begins with the arguments
    assert row["limit_ratio"] > 1
    config = json.loads((PROJECT / "thanos/testbed/models/doc-llama/config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    weights = 2 * hidden * (hidden + keys) + 3 * hidden * inner
    attention = 2 * 64 * hidden  # causal: half of all pairs, scores and sums
    whole, blocks, tokens = 2 * weights + attention, config["num_hidden_layers"], 2 * 64
    # Gathering leaves out the last projection; the last block is not run again. Before them the
    # probe runs the first block on two windows.
    passes = blocks * (whole - 2 * hidden * inner) + (blocks - 1) * whole + whole
    assert row["operations"] == pytest.approx(tokens * passes, rel=0.01)
    assert "Seconds by part" in (tmp_path / "timing/prunings.md").read_text()


def test_operations_are_counted_where_something_is_computed() -> None:
    A = torch.eye(8) * torch.arange(1, 9)
    X = torch.ones(8, 3)
    counts = []
    for action in (
        lambda: A @ X,
        lambda: A[None] @ X[None],
        lambda: torch.addmm(X, A, X),
        lambda: torch.nn.functional.linear(X.T, A, torch.ones(8)),
        lambda: A.to("meta") @ X.to("meta"),
        lambda: A + A,
        lambda: torch.linalg.cholesky(A),
        lambda: torch.linalg.solve_triangular(A, X, upper=False),
        lambda: torch.cholesky_solve(X, A),
    ):
        with torch.no_grad(), OperationCounter() as counter:
            action()
        counts.append(counter.count)
    assert counts == [*[2 * 8 * 8 * 3] * 4, 0, 0, 8**3 // 3, 8 * 8 * 3, 2 * 8 * 8 * 3]


def test_the_code_of_the_tree_is_what_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one where the command was typed."""
    monkeypatch.chdir(PROJECT)
    stages = tmp_path / "tree" / "thanos" / "stages"
    stages.mkdir(parents=True)
    for folder in (stages, stages.parent):
        (folder / "__init__.py").touch()
    (stages.parent / "config.py").write_text(
        "from unittest.mock import Mock\nresolve = list\nRunBuilder = lambda: Mock(**{'run."
        "return_value.pruning.to_json.return_value': {}, 'run.return_value.place.to_json."
        "return_value': {}})\n"
    )
    (stages / "prune.py").write_text(
        "import pathlib, sys\ndef main():\n    record = pathlib.Path(sys.argv[-1])\n"
        '    record.parent.mkdir()\n    record.write_text(\'{"layers": [{"seconds": 4.5}]}\')\n'
    )
    found = time_pruning(tmp_path / "tree", [], tmp_path, tmp_path / "out", 1, torch.device("cpu"))
    assert found["parts"] == {"solve": 4.5}


@pytest.mark.slow
def test_a_checkpoint_of_random_weights_is_pruned(tmp_path: Path) -> None:
    rows = timed(
        "{threads: 1, repeats: 1, random: {family: opt, hidden: 64, layers: 2, context: 32}, "
        "common: [calibration.windows=2], prunings: [[method=magnitude], [method=thanos]]}",
        tmp_path,
    )
    assert len(rows) == 2
    for row in rows:
        assert row["busy_share"] is None
        assert row["operations"] > 0
        assert row["peak_memory_bytes"] > 0


@pytest.mark.slow
def test_another_revision_takes_turns(tmp_path: Path) -> None:
    rows = timed(
        "{threads: 1, repeats: 2, revisions: [HEAD], common: [model=doc-llama], prunings: "
        '[[method=wanda, "pattern=2:4", calibration.windows=2]]}',
        tmp_path,
    )
    assert [(row["code"], row["repeats"]) for row in rows] == [("HEAD", 2), ("today", 2)]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("{}", "neither grids nor prunings"),
        ("{device: cuda:9, prunings: [[method=thanos]]}", "device cuda:9 is not available"),
        ("{prunings: [[method=dense]], common: [model=doc-llama]}", "expected a pruning"),
        (
            "{random: {family: gpt, hidden: 8, layers: 1, context: 8}, prunings: [[method=wanda]]}",
            "random.family is gpt; known: llama, opt",
        ),
        ("{prunings: [[method=thanos]], revisions: [no-such]}", "revision 'no-such' is not in"),
        (
            'grids: [{shapes: ["8x8"], patterns: ["0.5"], methods: [obs]}]',
            "error: unknown method 'obs'",
        ),
    ],
)
def test_what_cannot_be_timed_is_one_line(tmp_path: Path, suite: str, message: str) -> None:
    (tmp_path / "suite.yaml").write_text(suite)
    result = run(tmp_path / "suite.yaml", tmp_path / "timing")
    assert result.returncode != 0
    assert message in result.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "timing").exists()
