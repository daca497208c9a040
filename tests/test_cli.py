"""The command line: what it shows, and that nothing is written until there is something to do."""

import os
import subprocess
import sys

import pytest
import yaml

from thanos import cli
from thanos.config import GROUPS, options, resolve
from thanos.config.keys import all_keys
from thanos.config.reference import help_text, markdown
from thanos.config.schema import Config
from thanos.errors import UserError
from thanos.paths import CONF, PROJECT
from thanos.workflow.sweep import Launch, run_sweep, sweep_of


def shown(capsys, *arguments):
    cli.front_door(list(arguments))
    return capsys.readouterr().out


def test_help_names_every_group_option_and_key(capsys):
    text = shown(capsys, "--help")
    for group in GROUPS:
        assert all(name in text for name in options(group))
    for key in all_keys().values():
        assert key.meaning, f"{key.name} has no line in its class' docstring"
        assert key.is_group or f"  {key.name} " in text
    assert "--multirun" in text
    assert "method.damping               number; 0.01;" in text


def test_every_line_of_a_docstring_is_of_a_key():
    from thanos.config.keys import _meanings

    for kind in (Config, *(key.kind for key in all_keys().values() if key.is_group)):
        assert set(_meanings(kind)) == set(kind.__dataclass_fields__)


def test_the_file_and_the_schema_have_the_same_defaults():
    written = yaml.safe_load((CONF / "config.yaml").read_text())
    del written["defaults"]
    assert written == {name: all_keys()[name].default for name in written}


def test_the_page_of_keys_is_that_of_the_schema():
    made = (PROJECT / "docs" / "keys.md").read_text()
    command = (
        "python -c 'from thanos.config.reference import markdown; print(markdown(), end=\"\")'"
    )
    assert made == markdown(), f"run: {command} > docs/keys.md"


def test_a_folder_of_ones_own_is_in_the_help(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("name: mine\npath: x\n")
    assert "mine" in help_text((str(tmp_path),))


def test_the_configuration_is_shown_as_composed(capsys):
    job = yaml.safe_load(shown(capsys, "--cfg", "job", "method=wanda", "seed=3"))
    assert (job["method"]["name"], job["seed"], "hydra" in job) == ("wanda", 3, False)
    assert "hydra" in yaml.safe_load(shown(capsys, "--cfg", "all"))
    reference = "output_dir=out/${method.name}"
    assert "output_dir: out/${method.name}" in shown(capsys, "-c", "job", reference)
    assert "output_dir: out/thanos" in shown(capsys, "-c", "job", "--resolve", reference)
    assert shown(capsys, "-c", "job", "-p", "method", "method=wanda").startswith(
        "# @package method"
    )
    with pytest.raises(UserError, match=r"unknown key 'metod'.*did you mean method"):
        cli.front_door(["--cfg", "job", "metod=wanda"])
    with pytest.raises(UserError, match="unknown key 'colour'"):
        cli.front_door(["--cfg", "job", "+colour=red"])


def test_completion_and_info_are_hydras(capsys, monkeypatch):
    assert "hydra_bash_completion" in shown(capsys, "-sc", "install=bash")
    monkeypatch.setenv("COMP_LINE", "thanos method=th")
    known = [f"method=thanos{variant}" for variant in ("", "-plus", "-refined")]
    assert shown(capsys, "-sc", "query=bash").split() == known
    monkeypatch.setenv("COMP_LINE", "thanos method.da")
    assert shown(capsys, "-sc", "query=bash").strip() == "method.damping="


def test_a_sweep_is_a_suite():
    sweep = sweep_of(["method=thanos,wanda", "pattern=0.5,2:4", "method.damping=0.1,1", "seed=0"])
    assert sweep["axis"] == ["method.damping"]
    assert sweep["runs"] == [
        {
            "method": ["thanos", "wanda"],
            "pattern": ["0.5", "2:4"],
            "method.damping": ["0.1", "1"],
            "seed": "0",
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "method=thanos,obs"], "axis method: unknown method 'obs'"),
        (["-m", "seed=interval(0,1)"], "is an interval"),
        (["-m", "output_dir=out", "seed=0,1"], "key 'output_dir' is for one run by hand"),
        (["-m", "seed=0,1", "--name", "demo"], "there is a suite or rule of that name"),
        (["-m", "seed=0,1", "--name", "prune"], "there is a suite or rule of that name"),
        (["-m", "seed=0,1", "--name", "clean_orphans"], "there is a suite or rule of that name"),
        (["--resolve", "seed=0"], "are of use with --cfg only"),
        (["output_dir=out", "tracking=online"], "'tracking=online' has no effect with output_dir"),
        (["-m", "seed=0,1", "--name", "a/b"], "must be made of letters"),
        (["seed=0,1"], "has several values; sweep over them with -m"),
        (["method=wanda", "method.damping=1"], "key 'method.damping' is not used by method wanda"),
        (["-n", "output_dir=out"], "--dry-run is of no use with output_dir"),
        (["--profile", "nowhere"], "--profile nowhere is no folder; known: default, slurm"),
        (["--config-dir", "nowhere"], "--config-dir .*nowhere does not exist"),
        (["suite", "nothing"], "unknown suite 'nothing'; known: ablation"),
        (["suite", "demo", "metod=wanda"], "unknown key 'metod'"),
        (["suite=demo"], "suites have a command, python -m thanos suite"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        cli.front_door(arguments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_sweep_lists_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "thanos", "-m", "-n", "method=magnitude,wanda", "pattern=2:4"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert (counts["prune"], counts["evaluate"], counts["collect"]) == ("2", "2", "1")
    assert not (tmp_path / "results").exists()


def test_the_same_sweep_has_the_same_name_and_another_is_not_written_over(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr("thanos.workflow.sweep.snakemake", lambda *a: started.append(a) or 0)
    launch = Launch(tmp_path)
    first, _ = run_sweep(["seed=0,1", "pattern=2:4"], None, launch)
    again, _ = run_sweep(["pattern=2:4", "seed=0,1"], None, launch)
    assert first.name == again.name == started[0][0]
    assert [run.name for run in first.runs] == [run.name for run in again.runs][:2]
    run_sweep(["seed=0,1"], "mine", launch)
    with pytest.raises(UserError, match=r"mine\.yaml is another sweep"):
        run_sweep(["seed=0,2"], "mine", launch)


def test_a_run_without_a_folder_lies_where_a_suite_would_look(tmp_path, monkeypatch):
    monkeypatch.setattr("thanos.workflow.sweep.snakemake", lambda *_: 0)
    suite, _ = run_sweep(["method=wanda"], None, Launch(tmp_path))
    from thanos.config import RunBuilder

    assert suite.runs[0].evaluation == RunBuilder().run(resolve(["method=wanda"])).evaluation
