"""The demo's workflow, run for real on a tiny selection."""

import json
import shutil

from .conftest import TINY


def test_everything_lies_in_a_home_of_its_own_with_its_spec(finished):
    assert set(finished.files("pruned")) == {"wanda-2-4", "thanos-2-4"}
    assert set(finished.files("evaluations")) == {"dense", "wanda-2-4", "thanos-2-4"}
    assert set(finished.files("latencies")) == {"wanda-2-4", "thanos-2-4"}
    for name, file in finished.files("pruned").items():
        record = json.loads(file.read_text())
        metric, update = ("wanda", "joint" if name == "thanos-2-4" else "none")
        assert (record["spec"]["method"]["metric"], record["spec"]["method"]["update"]) == (
            metric,
            update,
        )
        assert {path.name for path in file.parent.iterdir()} == {
            *("pruning.json", "checkpoint", "logs"),
        }
    for file in finished.files("evaluations").values():
        record = json.loads(file.read_text())
        assert record["corpora"].keys() == {"docstrings"}
        assert record["tasks"].keys() == {"doc_continuation"}
        assert record["size"]["parameters"]["total"] > 3.9e6
        for part in (*record["corpora"].values(), *record["tasks"].values()):
            assert part["provenance"]["used"]["device"] in ("cpu", "cuda")
            assert "gpu" not in part["provenance"]["hardware"]
    measured = list(finished.results.glob("measurements/*.json"))
    assert len(measured) == 3 * 3  # a corpus, a task and the size of each model


def test_an_update_damages_less(finished):
    values = {
        name: json.loads(file.read_text())["corpora"]["docstrings"]
        for name, file in finished.files("evaluations").items()
    }
    # Eight windows are noisy, but the order is far outside the noise: the windows are the same.
    assert (
        values["dense"]["perplexity"]
        < values["thanos-2-4"]["perplexity"]
        < values["wanda-2-4"]["perplexity"]
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
    listed = json.loads((suite / "runs.json").read_text())["runs"]
    assert {run["run"] for run in listed} == set(tracked["runs"])
    for run in listed:
        assert (finished.results / "evaluations" / run["evaluations"]).is_dir()


def test_a_finished_suite_has_nothing_to_do(finished):
    assert finished.jobs("demo") == {}


def test_a_changed_method_parameter_runs_only_its_own_runs_again(finished):
    jobs = finished.jobs("demo", overrides=f"{TINY} method.damping=0.1")
    # Wanda has no damping; the dense run and the tokens stay.
    assert (jobs["prune"], jobs["evaluate"], jobs["efficiency"]) == (1, 1, 1)
    assert not {"calibration", "evaluation_windows", "continuations"} & jobs.keys()


def test_latencies_are_measured_where_the_suite_asks(finished):
    measured = json.loads(finished.files("latencies")["thanos-2-4"].read_text())
    # Two cores were given to the workflow, and the job had them all to itself.
    assert (measured["form"], measured["threads"]) == ("zeros", 2)
    latency = finished.results / "suites" / "demo-quick" / "tables" / "latency.md"
    assert "| 2:4 | Thanos |" in latency.read_text()
    jobs = finished.jobs("demo", overrides=f"{TINY} evaluation.efficiency=false")
    assert not {"efficiency", "prune", "evaluate"} & jobs.keys()  # it is no other run


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
    assert "magnitude-2-4" in workflow.files("evaluations")
