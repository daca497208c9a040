"""Paths of every spelling: on the command line, in a suite file, in `--config overrides=`."""

import json
import re

import pytest
import yaml
from snakemake.cli import parse_config

from thanos import cli
from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.paths import SOURCE
from thanos.workflow import suite_files
from thanos.workflow.options import decoded, encoded, line_of, overrides_of
from thanos.workflow.suites import load_suite
from thanos.workflow.sweep import sweep_of

MODEL = SOURCE / "thanos" / "testbed" / "models" / "doc-llama"
SPELLINGS = [
    *("plain", "with space", "two  spaces", "a=b", "a(b)", "(new)", "[old]", "{x}", "a#b", "a #b"),
    *("o'brien", "'quoted' x", 'double"quote', "Ü", "模型", "a,b", "a, b", "2:4", "a: b", "0123"),
    *("1e5", "yes", "null.", "1_000", "100%", "a&b;c", "a!b?", "a|b*", "$HOME", "a\\b", "-dash"),
    *("dots...", "seed=1", "x seed=1", "method=wanda", "~tilde", "a\ttab", "`x`", "+plus", "@at"),
    *("choice", "a -> b", "a: #1 'x', y=(z)"),
]


@pytest.fixture(params=SPELLINGS)
def odd(request, tmp_path, monkeypatch):
    """The path of a model and of a text that are called oddly, relative to where one stands."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / request.param).symlink_to(MODEL)
    (folder / f"{request.param}.txt").write_text("text")
    monkeypatch.chdir(folder)
    return request.param


def found_in(run):
    """The paths of the model and the text that a run has found."""
    calibration = run.pruning.calibration
    return calibration.model.path, calibration.text.path


def expected(odd, tmp_path):
    return str(tmp_path / "here" / odd), str(tmp_path / "here" / f"{odd}.txt")


def overrides_for(odd):
    return ["model=hf", f"model.path={odd}", "calibration=text", f"calibration.path={odd}.txt"]


def test_on_the_command_line(odd, tmp_path, capsys):
    run = RunBuilder().run(resolve(overrides_for(odd)))
    assert found_in(run) == expected(odd, tmp_path)
    cli.front_door(["--cfg", "job", *overrides_for(odd)])
    assert yaml.safe_load(capsys.readouterr().out)["model"]["path"] == odd
    (block,) = sweep_of(overrides_for(odd))["runs"]
    assert block["model.path"] == odd


def test_in_a_suite_file(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_files, "CONF", tmp_path)
    (tmp_path / "suite").mkdir()
    block = dict(override.split("=", 1) for override in overrides_for(odd))
    (tmp_path / "suite" / "mine.yaml").write_text(
        yaml.safe_dump({"runs": [block]}, allow_unicode=True), encoding="utf-8"
    )
    (run,) = load_suite("mine").runs
    assert found_in(run) == expected(odd, tmp_path)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(suite_files, "CONF", tmp_path)
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "mine.yaml").write_text("runs: [{method: wanda, pattern: 2:4}]\n")


def test_in_the_workflows_overrides(odd, tmp_path, mine):
    """As a list always; as a line wherever YAML and other keys leave it alone, else it is said."""
    overrides = overrides_for(odd)
    for value in (json.dumps(overrides, ensure_ascii=False), line_of(overrides)):
        argument = f"overrides={value}"
        read = overrides_of(parse_config([argument])["overrides"], [argument])
        (run,) = load_suite("mine", read).runs
        assert found_in(run) == expected(odd, tmp_path)
    (run,) = load_suite("mine", decoded(encoded(overrides))).runs
    assert found_in(run) == expected(odd, tmp_path)


@pytest.mark.parametrize("odd", ["a #b", "a: b", "x'"])
def test_what_yaml_changes_is_refused_with_what_to_type(odd, tmp_path, mine):
    argument = f"overrides=seed=1 mirror={tmp_path}/{odd}"
    with pytest.raises(
        UserError, match=r"was read as .*, for Snakemake reads it as YAML"
    ) as caught:
        overrides_of(parse_config([argument])["overrides"], [argument])
    assert "\n" not in str(caught.value)
    remedy = re.search(r"give a list, '(overrides=.*)', or use", str(caught.value))[1]
    read = overrides_of(parse_config([remedy])["overrides"], [remedy])
    assert read == ["seed=1", f"mirror={tmp_path}/{odd}"]


def test_the_home_folder_and_where_one_stands_come_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(MODEL)
    at_home = RunBuilder().run(resolve(["model=hf", "model.path=~/model"]))
    assert at_home.evaluation.base.path == str(tmp_path / "model")
    assert resolve(["model=hf", "model.path=~/model"]).model.name == "model"
    monkeypatch.chdir(tmp_path / "model")
    assert resolve(["model=hf", "model.path=."]).model.name == "doc-llama"
    nearer = tmp_path / "thanos" / "testbed" / "models" / "doc-llama"
    nearer.parent.mkdir(parents=True)
    nearer.symlink_to(MODEL.with_name("doc-opt"))
    monkeypatch.chdir(tmp_path)
    run = RunBuilder().run(resolve([]))
    assert run.evaluation.base.path == str(nearer)


@pytest.mark.parametrize(
    ("name", "safe"), [("my model (v2)", "my-model-v2-"), ("Ü模型", "model"), (".hidden", "hidden")]
)
def test_a_name_taken_from_a_path_is_fit_for_folders(name, safe, tmp_path):
    (tmp_path / name).mkdir()
    assert resolve(["model=hf", f"model.path={tmp_path / name}"]).model.name == safe
    with pytest.raises(UserError, match=r"model\.name .* names of folders .*; try model\.name="):
        resolve([f"model.name={name} "]) if name != ".hidden" else resolve(["model.name=.hidden"])


def test_values_in_suites_are_as_written(mine, tmp_path):
    file = tmp_path / "suite" / "mine.yaml"
    file.write_text(
        "title: 0123\n"
        "axis: method.damping\n"
        "runs:\n"
        "  - method: thanos\n"
        "    pattern: [2:4, 4:8, 0.50]\n"
        "    method.label: yes\n"
        "    method.damping: [1e-2, 1.0e-3]\n"
        "    method.block_size: 1_0\n"
        "    evaluation.efficiency: no\n"
        "    calibration.path: ~\n"
        "    calibration: wikitext2\n"
        "exclude:\n"
        "  - {method.damping: 0.010, pattern: 4:8}\n"
    )
    suite = load_suite("mine")
    points = [(run.columns["pattern"], run.columns["damping"]) for run in suite.runs]
    assert points == [
        ("2:4", 0.01),
        ("2:4", 0.001),
        ("4:8", 0.001),
        ("unstructured:0.5", 0.01),
        ("unstructured:0.5", 0.001),
    ]
    assert suite.title == "0123"
    assert {run.columns["label"] for run in suite.runs} == {"yes"}
    assert {run.columns["block_size"] for run in suite.runs} == {10}
    file.write_text("runs:\n  - {seed: 1, seed: 2}\n")
    with pytest.raises(UserError, match=r"suite mine: .*key 'seed' is given twice"):
        load_suite("mine")
    file.write_text("runs: [}\n")
    with pytest.raises(UserError, match=r"suite mine: .*mine\.yaml is no YAML"):
        load_suite("mine")
