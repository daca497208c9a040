"""`snakemake verify`: whatever happens to a result afterwards is found."""

import shutil
from pathlib import Path

import pytest

from thanos.stages.verify import verify_suite


@pytest.fixture
def results(finished, tmp_path):
    """A copy of the tiny demo's results, to be damaged."""
    return Path(shutil.copytree(finished.results, tmp_path / "results"))


def findings(results: Path) -> list[tuple[str, str]]:
    tokens = [*results.glob("calibration/*-????????"), *results.glob("evaluation/*-????????")]
    tokens.append(results / "testbed" / "continuations")
    found = verify_suite(results / "suites" / "demo-quick", results.glob("runs/*/*/*"), tokens)
    return [(finding.kind, finding.what) for finding in found]


def artefacts(results: Path) -> list[Path]:
    """Every file but logs, the tracker's own and the checksums of others."""
    apart = {"logs", "tracking"}
    files = (f for f in sorted(results.rglob("[!.]*")) if f.is_file())
    return [
        file
        for file in files
        if not any(
            part in apart or part.endswith("-logs") for part in file.relative_to(results).parts
        )
    ]


def test_a_flipped_byte_in_any_artefact_is_found(results):
    assert findings(results) == []
    files = artefacts(results)
    names = {file.name for file in files}
    assert {"config.yaml", "pruning.json", "perplexity.json", "zero_shot.json"} <= names
    assert {"tokens.safetensors", "windows.safetensors", "results.csv", "layers.csv"} <= names
    assert {"main.md", "main-perplexity-docstrings.svg", "manifest.json"} <= names
    for file in files:
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        found = findings(results)
        assert found, file
        assert {kind for kind, _ in found} == {"damaged"}, (file, found)
        subject = file.parent if file.name == "manifest.json" else file
        assert any(str(subject.with_suffix("")) in what for _, what in found), (file, found)
        file.write_bytes(content)
    assert findings(results) == []


def test_what_is_missing_or_left_over_is_found(results):
    run = next(results.glob("runs/doc-llama/2-4/thanos-*"))
    (run / "pruning.json").unlink()
    (run / ".perplexity.json.x1y2").write_text("half a file")
    shutil.rmtree(results / "suites" / "demo-quick" / "figures")
    (results / "suites" / "demo-quick" / "tables" / "mine.txt").write_text("by hand")
    stranger = results / "runs" / "doc-llama" / "2-4" / "thanos-00000000"

    found = findings(results)

    assert [kind for kind, _ in found] == ["missing", "orphaned", "orphaned", "missing"]
    for part, (_, what) in zip(
        ("pruning.json", ".perplexity.json.x1y2", "mine.txt", "figures"), found, strict=True
    ):
        assert part in what

    known = list(results.glob("runs/*/*/*"))
    shutil.copytree(run, stranger)
    found = verify_suite(results / "suites" / "demo-quick", known, [])
    assert [f.what for f in found if f.kind == "orphaned" and "no finished suite" in f.what] == [
        f"{stranger} is a run of no finished suite; delete it if so"
    ]


def test_the_target_lists_findings_and_fails(finished, tmp_path):
    from .conftest import Workflow

    whole = finished("verify")
    assert "3 runs verified, 0 damaged, 0 missing, 0 orphaned" in whole.stdout
    damaged = Workflow(tmp_path)
    shutil.copytree(finished.results, damaged.results)
    file = damaged.runs()["wanda"] / "perplexity.json"
    file.write_bytes(file.read_bytes()[:-20])
    result = damaged("verify", check=False)
    assert result.returncode != 0
    assert f"damaged   {file.relative_to(tmp_path)} is damaged" in result.stdout
    assert "delete it and run its rule again" in result.stdout
