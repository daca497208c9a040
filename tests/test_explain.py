"""A result says how to make it again, with commands that resolve to the very same run."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thanos import layout
from thanos.artifacts import write_json, write_manifest
from thanos.config import RunBuilder, refuse_unused, resolve
from thanos.errors import UserError
from thanos.identity import PruningSpec
from thanos.identity.fingerprints import fingerprint, stage_fingerprint
from thanos.identity.spec import read_spec
from thanos.paths import PROJECT
from thanos.provenance import provenance
from thanos.stages.explain import explain, find_record
from thanos.workflow.catalog import listing
from thanos.workflow.suites import load_suite

OVERRIDES = "model=doc-llama method=thanos pattern=2:4 method.damping=0.1"


def made(spec, place):
    return {"spec": spec.to_json(), "provenance": provenance(time.time(), fingerprint(spec, place))}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results of a suite, and beside it of another one; the working directory is theirs."""
    for name, overrides in (("demo", [*OVERRIDES.split(), "device=cpu"]), ("regression", [])):
        suite = load_suite(name, overrides, size="quick")
        write_json(tmp_path / f"results/suites/{name}-quick/runs.json", listing(suite))
        for run in suite.runs[:2]:
            parts = {part.readable: made(part, run.place) for part in run.evaluation.parts()[:1]}
            record = {"spec": run.evaluation.to_json(), "corpora": parts}
            evaluations = tmp_path / "results" / layout.EVALUATIONS
            write_json(evaluations / run.evaluation.id / layout.EVALUATION, record)
            if run.pruning:
                folder = tmp_path / "results" / layout.PRUNED / run.pruning.id
                write_json(folder / layout.RECORD, made(run.pruning, run.place))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def pruned(results):
    (file,) = results.glob(f"{layout.PRUNED}/thanos-*/{layout.RECORD}")
    return file


@pytest.mark.parametrize("suite", ["demo", "paper", "ablation-components", "regression"])
def test_overrides_resolve_to_the_same_run(suite):
    builder = RunBuilder()
    for run in load_suite(suite).runs[::7]:
        config = resolve(run.overrides)
        refuse_unused(config, run.overrides)
        again = builder.run(config, run.overrides)
        assert (again.name, again.columns) == (run.name, run.columns)
        assert (again.evaluation, again.latency) == (run.evaluation, run.latency)


def test_every_result_says_how_it_was_made(pruned):
    for result in (pruned, pruned.parent, pruned.parent / "checkpoint" / "model.safetensors"):
        result.parent.mkdir(exist_ok=True)
        result.touch()
        assert find_record(result)[0] == pruned
    record, origin = find_record(pruned)[1:]
    assert record["provenance"] == origin
    assert origin.keys() >= {"fingerprint", "source", "versions", "hardware", "started", "ended"}
    assert origin["source"].keys() == {"revision", "dirty"}
    assert origin["hardware"].keys() >= {"machine", "processor", "cores", "memory_bytes"}
    assert origin["versions"].keys() >= {"torch", "transformers", "tokenizers", "numpy"}
    assert origin["fingerprint"]["libraries"].keys() >= {"torch", "transformers", "safetensors"}
    assert origin["fingerprint"]["code"].keys() >= {"thanos.stages.prune", "thanos.pruning.updates"}
    assert len(record["spec"]["model"]["weights"]) == len(origin["lock_sha256"]) == 64
    assert record["spec"]["calibration"]["text"]["source"] == "docstrings"
    assert origin["started"] <= origin["ended"]


def test_public_data_is_named_with_its_revision():
    run = load_suite("paper").runs[-1]
    drawn = fingerprint(run.pruning.calibration, run.place).inputs
    assert drawn["text c4"].startswith("allenai/c4@")
    (windows,) = run.evaluation.windows
    cut = fingerprint(windows, run.place).inputs["text wikitext2"]
    assert len(cut.rpartition("@")[2]) == 40


def test_it_prints_commands_for_the_workflow_and_by_hand(pruned):
    lines = list(explain(pruned))
    target = pruned.relative_to(Path.cwd())
    assert f"  snakemake {target} --config quick=true 'overrides={OVERRIDES}'" in lines
    (by_hand,) = (line for line in lines if line.startswith("  python -m thanos "))
    *overrides, output = shlex.split(by_hand)[3:]
    assert output == "output_dir=out"
    spec = read_spec(PruningSpec, str(pruned))
    assert RunBuilder().run(resolve(overrides)).pruning == spec
    stage = f"  python -m thanos.stages.prune {pruned} --calibration "
    tokens = pruned.parents[2] / layout.CALIBRATION / spec.calibration.id
    assert f"{stage}{tokens} --checkpoint checkpoint --record pruning.json" in lines
    assert any(line.startswith("  git checkout ") for line in lines)
    assert not any("(this tree" in line for line in lines)


def test_a_dense_model_and_a_part_of_an_evaluation_have_commands_too(results):
    run = load_suite("regression", size="quick").runs[0]
    assert run.pruning is None
    dense = results / layout.EVALUATIONS / run.evaluation.id / layout.EVALUATION
    part = run.evaluation.parts()[0]
    measured = results / layout.MEASUREMENTS / f"{part.id}.json"
    write_json(measured, made(part, run.place))
    for result in (dense, measured):
        lines = "\n".join(explain(result))
        assert f"  snakemake {dense.relative_to(Path.cwd())} --config quick=true\n" in lines
        windows = results / layout.WINDOWS / run.evaluation.windows[0].id
        stage = f"  python -m thanos.stages.evaluate {dense} --windows {windows} --parts measure"
        assert stage in lines


@pytest.mark.parametrize("rule", ["prune", "evaluate"])
def test_the_workflow_knows_the_result_by_the_printed_command(results, pruned, rule):
    (evaluation,) = results.glob(f"{layout.EVALUATIONS}/thanos-*/{layout.EVALUATION}")
    result = {"prune": pruned, "evaluate": evaluation}[rule]
    line = next(line for line in explain(result) if line.startswith("  snakemake "))
    snakefile = str(PROJECT / "Snakefile")
    command = [sys.executable, "-m", *shlex.split(line), "-n", "--snakefile", snakefile]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rule in done.stdout


def test_what_a_run_by_hand_left_is_explained(tmp_path, results):
    overrides = ["method=magnitude", "pattern=2:4"]
    run = RunBuilder().run(resolve(overrides), overrides)
    out = tmp_path / "out"
    write_json(out / "pruning.json", made(run.pruning, run.place))
    write_json(out / "metrics.json", {"overrides": overrides, "perplexity": {}})
    (out / "checkpoint").mkdir()
    for result in (out, out / "checkpoint", out / "pruning.json"):
        lines = list(explain(result))
        assert "  python -m thanos method=magnitude pattern=2:4 output_dir=out" in lines
        assert not any(line.startswith("  snakemake ") for line in lines)


def test_tables_and_changed_trees_are_explained(results):
    folder = results / "suites" / "demo-quick" / "tables"
    folder.mkdir(parents=True)
    origin = provenance(time.time(), stage_fingerprint("tabulate"))
    origin["source"] = {"revision": "a" * 40, "dirty": True}
    origin["fingerprint"]["code"]["thanos.reporting.tables"] = "b" * 12
    origin["fingerprint"]["code"]["thanos.gone"] = "c" * 12
    write_manifest(folder, {"provenance": {**origin, "lock_sha256": "c" * 64}})
    lines = "\n".join(explain(folder))
    assert f"  snakemake demo --config quick=true 'overrides={OVERRIDES}'" in lines
    assert f"git checkout {'a' * 40}" in lines
    assert "had changes beyond that revision" in lines
    assert "(this tree differs in thanos.gone, thanos.reporting.tables)" in lines
    assert "this tree's lock file differs" in lines


def test_a_change_of_any_module_behind_a_result_is_told(pruned):
    file, record, origin = find_record(pruned)
    for module in origin["fingerprint"]["code"]:
        code = {**origin["fingerprint"]["code"], module: "0" * 12}
        changed = {**origin, "fingerprint": {**origin["fingerprint"], "code": code}}
        write_json(file, {**record, "provenance": changed})
        assert f"  (this tree differs in {module})" in explain(pruned)


def test_what_is_no_result_is_one_line(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_record(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="is no result of a run or a suite"):
        find_record(tmp_path)
