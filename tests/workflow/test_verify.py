"""`snakemake verify`: whatever happens to a result, or to what it is of, is found."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from thanos import layout
from thanos.artifacts import read_json, write_json
from thanos.identity import fingerprints
from thanos.workflow.suites import load_suite
from thanos.workflow.verification import Verification

from .conftest import TINY, Workflow


@pytest.fixture
def results(finished, tmp_path):
    """A copy of the tiny demo's results, to be damaged."""
    return Path(shutil.copytree(finished.results, tmp_path / "results"))


@pytest.fixture(scope="module")
def suite():
    return load_suite("demo", shlex.split(TINY), size="quick")


def findings(suite, results: Path) -> list[tuple[str, str]]:
    verification = Verification(suite, results, results / "suites" / "demo-quick")
    return [(found.kind, str(found)) for found in verification.findings()]


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


def test_a_flipped_byte_in_any_artefact_is_found(suite, results):
    assert findings(suite, results) == []
    files = artefacts(results)
    names = {file.name for file in files}
    assert {"runs.json", "pruning.json", "evaluation.json", "latency.json"} <= names
    assert {"tokens.safetensors", "windows.safetensors", "results.csv", "layers.csv"} <= names
    assert {"main.md", "main-perplexity-docstrings.svg", "manifest.json", "origin.json"} <= names
    assert any(file.parent.name == "measurements" for file in files)
    for file in files:
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        file.write_bytes(damaged)
        found = [kind for kind, what in findings(suite, results) if kind == "damaged"]
        subject = file.parent if file.name == "manifest.json" else file
        named = [what for _, what in findings(suite, results)]
        assert found, file
        assert any(str(subject.with_suffix("")) in what for what in named), (file, named)
        file.write_bytes(content)
    assert findings(suite, results) == []


def test_what_is_missing_or_left_over_is_found(suite, results):
    run = next(results.glob("pruned/thanos-*"))
    (run / "pruning.json").unlink()
    evaluated = next(results.glob("evaluations/wanda-*"))
    (evaluated / ".evaluation.json.x1y2").write_text("half a file")
    shutil.rmtree(results / "suites" / "demo-quick" / "figures")
    (results / "suites" / "demo-quick" / "tables" / "mine.txt").write_text("by hand")
    stranger = results / "pruned" / "thanos-2-4-000000000000"
    shutil.copytree(evaluated, stranger)

    found = findings(suite, results)

    assert sorted(kind for kind, _ in found) == ["missing"] * 2 + ["orphaned"] * 3
    for part in ("pruning.json", ".evaluation.json.x1y2", "mine.txt", "figures", stranger.name):
        assert any(part in what for _, what in found), part


def rewritten(file: Path, change) -> None:
    values = read_json(file)
    change(values)
    write_json(file, values)


def test_stale_results_say_why(suite, results, monkeypatch):
    record = next(results.glob("pruned/thanos-*/pruning.json"))
    rewritten(
        record,
        lambda v: v["provenance"]["fingerprint"]["code"].update({"thanos.pruning.updates": "0"}),
    )
    rewritten(next(results.glob("pruned/wanda-*/pruning.json")), lambda v: v["weights"].clear())
    kinds = findings(suite, results)
    assert [kind for kind, _ in kinds] == ["stale"]
    assert "was made before a change of thanos.pruning.updates" in kinds[0][1]

    # A checkpoint that was pruned anew makes what was measured of the former one stale.
    rewritten(record, lambda v: v["weights"].update({"model.safetensors": "0" * 64}))
    reasons = [what for kind, what in findings(suite, results) if kind == "stale"]
    assert any("measured before pruned model.safetensors was made anew" in r for r in reasons)

    monkeypatch.setattr(fingerprints, "version", lambda name: "99")
    fingerprints._versions.cache_clear()
    everything = [what for kind, what in findings(suite, results) if kind == "stale"]
    fingerprints._versions.cache_clear()
    for part in ("calibration/", "windows/", "pruned/", "evaluations/", "latencies/"):
        assert any(part in what and "torch" in what for what in everything if "token" not in part)


def test_orphans_are_listed_and_then_removed(finished, tmp_path):
    """After other options were run in the same place, the former ones' results are orphans."""
    workflow = Workflow(tmp_path)
    shutil.copytree(finished.results, workflow.results)
    listed = workflow.results / "suites" / "demo-quick" / "runs.json"
    rewritten(listed, lambda v: v.update(runs=[r for r in v["runs"] if "wanda" not in r["run"]]))
    only = TINY.replace("wanda,thanos", "thanos")
    result = workflow("clean_orphans", overrides=only)
    gone = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("orphaned")]
    assert len(gone) == 1 + 1 + 1 + 3  # a model, its evaluation, its latency, three measurements
    assert "removed: 6 orphaned" in result.stdout
    for kind in (layout.PRUNED, layout.EVALUATIONS, layout.LATENCIES):
        assert not list(workflow.results.glob(f"{kind}/wanda-*"))
        assert list(workflow.results.glob(f"{kind}/thanos-*"))
    assert "0 orphaned" in workflow("verify", overrides=only, check=False).stdout


def test_nothing_is_an_orphan_while_the_list_of_a_suite_cannot_be_read(suite, results):
    other = results / "suites" / "another" / "runs.json"
    other.parent.mkdir()
    other.write_text("{")
    shutil.copytree(next(results.glob("pruned/thanos-*")), results / "pruned" / "thanos-0-0")
    ((kind, what),) = findings(suite, results)
    assert (kind, str(other) in what) == ("damaged", True)


def test_the_target_lists_findings_and_fails(finished, tmp_path):
    whole = finished("verify")
    assert "3 runs verified, 0 damaged, 0 missing, 0 stale, 0 orphaned, 9 current" in whole.stdout
    damaged = Workflow(tmp_path)
    shutil.copytree(finished.results, damaged.results)
    file = damaged.files("evaluations")["wanda-2-4"]
    file.write_bytes(file.read_bytes()[:-20])
    result = damaged("verify", check=False)
    assert result.returncode != 0
    assert "damaged   " in result.stdout
    assert "0 orphaned, 8 current" in result.stdout
    assert "evaluation.json is damaged" in result.stdout
    assert "delete it and run its rule again" in result.stdout


def test_an_older_layout_is_said_in_one_line(tmp_path):
    workflow = Workflow(tmp_path)
    (workflow.results / "runs").mkdir(parents=True)
    result = workflow("--dry-run", "demo")
    said = [line for line in result.stderr.splitlines() if "older layout" in line]
    assert len(said) == 1
    assert said[0].endswith("is of an older layout and not used; delete it")
    assert json.dumps(said)  # a plain line
