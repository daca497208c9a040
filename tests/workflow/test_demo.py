"""The demo's workflow, run for real on a tiny selection."""

import json
import shutil

import yaml

from .conftest import TINY


def test_every_run_leaves_its_results_beside_its_configuration(finished):
    runs = finished.runs()
    assert set(runs) == {"dense", "wanda", "thanos"}
    for method, folder in runs.items():
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["method"]["name"] == method
        results = {"config.yaml", "config.yaml.sha256", "perplexity.json", "zero_shot.json"}
        results |= {"size.json", "logs"}
        assert {path.name for path in folder.iterdir()} == results | (
            set() if method == "dense" else {"pruning.json", "efficiency.json"}
        )


def test_pruned_weights_are_temporary_and_damage_less_with_an_update(finished):
    runs = finished.runs()
    assert not list(finished.results.glob("runs/*/*/*/checkpoint"))
    values = {
        method: json.loads((folder / "perplexity.json").read_text())["corpora"]["docstrings"]
        for method, folder in runs.items()
    }
    # Eight windows are noisy, but the order is far outside the noise: the windows are the same.
    assert (
        values["dense"]["perplexity"]
        < values["thanos"]["perplexity"]
        < values["wanda"]["perplexity"]
    )
    assert len({value["tokens_sha256"] for value in values.values()}) == 1


def test_the_suite_has_tables_figures_and_tracking(finished):
    suite = finished.results / "suites" / "demo-quick"
    tables = {path.suffix for path in (suite / "tables").glob("[!.]*")}
    assert tables == {".md", ".csv", ".tex", ".html", ".txt", ".json"}
    assert "Thanos" in (suite / "tables" / "main.txt").read_text()
    figures = {path.suffix for path in (suite / "figures").glob("[!.]*")}
    assert figures == {".svg", ".png", ".pdf", ".json"}
    tracked = json.loads((suite / "tracking.json").read_text())
    assert len(tracked["runs"]) == 3
    offline = finished.results / "tracking" / "wandb"
    assert len(list(offline.glob("offline-run-*"))) == 4  # three runs and the suite


def test_a_finished_suite_has_nothing_to_do(finished):
    assert finished.jobs("demo") == {}


def test_a_changed_method_parameter_runs_only_its_own_runs_again(finished):
    jobs = finished.jobs("demo", overrides=f"{TINY} method.damping=0.1")
    # The dense run and the tokens stay; wanda's configuration has the damping too.
    assert jobs["prune"] == 2
    assert jobs["evaluate"] == 2
    assert "calibration" not in jobs
    assert "evaluation_windows" not in jobs


def test_latencies_are_measured_where_the_suite_asks(finished):
    for method, folder in finished.runs().items():
        assert (folder / "efficiency.json").exists() == (method != "dense")
    measured = json.loads((finished.runs()["thanos"] / "efficiency.json").read_text())
    # Two cores were given to the workflow, and the job had them all to itself.
    assert (measured["form"], measured["threads"]) == ("zeros", 2)
    latency = finished.results / "suites" / "demo-quick" / "tables" / "latency.md"
    assert "| 2:4 | Thanos |" in latency.read_text()
    jobs = finished.jobs("demo", overrides=f"{TINY} evaluation.efficiency=false")
    assert not {"efficiency", "prune", "evaluate", "run_config"} & set(jobs)  # it is no other run


def test_logging_anew_prunes_nothing(finished):
    jobs = finished.jobs("demo", overrides=f"{TINY} tracking=disabled")
    assert not {"prune", "evaluate"} & set(jobs)


def test_the_report_is_one_file_that_works_offline(finished):
    report = finished.directory / "report.html"
    finished("demo", "--report", str(report))
    text = report.read_text()
    assert "main-perplexity-docstrings" in text
    assert "<script src=" not in text


def test_a_failing_run_is_named_and_the_others_stay(finished, tmp_path):
    from .conftest import Workflow

    workflow = Workflow(tmp_path)
    shutil.copytree(finished.results / "testbed", workflow.results / "testbed")
    # Three columns per group do not divide the width of any layer.
    overrides = "model=doc-llama method=magnitude pattern=2:3,2:4 outlier_fraction=0"
    result = workflow("demo", overrides=overrides, check=False)
    assert result.returncode != 0
    message = "pattern 2:3 needs a width that is a multiple of 3"
    assert message in result.stdout + result.stderr
    assert "model.layers.0.self_attn.q_proj" in result.stdout + result.stderr
    assert list(workflow.results.glob("runs/doc-llama/2-4/magnitude-*/perplexity.json"))
