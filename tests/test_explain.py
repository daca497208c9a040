"""A result says how to make it again, with commands that resolve to the very same run."""

import subprocess
import sys
import time

import pytest

from thanos.artifacts import write_json, write_manifest, write_text
from thanos.config import dumps, resolve
from thanos.errors import UserError
from thanos.provenance import circumstances, provenance
from thanos.stages.explain import explain, find_provenance, overrides_of
from thanos.suites import load_suite


@pytest.fixture
def result(tmp_path):
    run = next(r for r in load_suite("demo").runs if r.identifier.startswith("doc-llama/2-4/than"))
    folder = tmp_path / "results" / "runs" / run.identifier
    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", dumps(run.config))
    made = {"corpora": {}, "provenance": provenance(run.config, time.time())}
    write_json(folder / "perplexity.json", made)
    return folder / "perplexity.json"


@pytest.mark.parametrize("suite", ["demo", "paper", "ablation-components", "regression"])
def test_overrides_resolve_to_the_same_run(suite):
    for run in load_suite(suite).runs[::7]:
        again = resolve(overrides_of(run.config))
        assert again.identity() == run.config.identity()


def test_every_result_is_provenanced(result):
    made, config = find_provenance(result)
    assert config == result.parent / "config.yaml"
    assert made["source"].keys() == {"revision", "dirty", "sha256"}
    assert made["hardware"].keys() >= {"machine", "processor", "cores", "memory_bytes"}
    assert made["versions"].keys() >= {"torch", "transformers", "tokenizers", "numpy"}
    assert len(made["model"]["sha256"]) == len(made["lock_sha256"]) == 64
    assert made["calibration_data"] == {"docstrings": {}}
    assert made["started"] <= made["ended"]


def test_public_data_is_named_with_its_revision():
    made = provenance(load_suite("paper").runs[-1].config, time.time())
    assert made["calibration_data"]["c4"]["repository"] == "allenai/c4"
    assert len(made["evaluation_data"]["wikitext2"]["revision"]) == 40


def test_it_prints_commands_for_the_workflow_and_by_hand(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(explain(result))
    identifier = result.parent.relative_to(tmp_path)
    assert f"  snakemake {identifier}/perplexity.json --config 'overrides=model=doc-llama " in lines
    assert "  python -m thanos model=doc-llama " in lines
    assert f"  python -m thanos.stages.prune {identifier}/config.yaml --calibration tokens" in lines
    assert "  git checkout " in lines
    assert "(this tree's source differs" not in lines


def test_the_workflow_knows_the_result_by_the_printed_command(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import shlex

    line = next(line for line in explain(result) if line.startswith("  snakemake "))
    from pathlib import Path

    snakefile = Path(__file__).parent.parent / "Snakefile"
    command = [sys.executable, "-m", *shlex.split(line), "-n", "--snakefile", str(snakefile)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prune" in done.stdout


def test_tables_and_changed_trees_are_explained(tmp_path):
    folder = tmp_path / "results" / "suites" / "demo-quick" / "tables"
    folder.mkdir(parents=True)
    made = circumstances(time.time())
    made["source"] = {"revision": "a" * 40, "dirty": True, "sha256": "b" * 64}
    write_manifest(folder, {"provenance": {**made, "lock_sha256": "c" * 64}})
    lines = "\n".join(explain(folder))
    assert "snakemake demo --config quick=true" in lines
    assert f"git checkout {'a' * 40}" in lines
    assert "had changes beyond that revision" in lines
    assert "this tree's source differs" in lines
    assert "this tree's lock file differs" in lines


def test_what_is_no_result_is_one_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_provenance(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="is no result of a run or a suite"):
        find_provenance(tmp_path)
