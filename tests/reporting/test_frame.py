"""The tidy frame: what it holds, and what it refuses."""

import subprocess
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from results_folder import ResultsFolder

from thanos import layout
from thanos.artifacts import read_json, write_json
from thanos.config import Run
from thanos.errors import UserError
from thanos.reporting import collecting
from thanos.reporting.ablations import ablation_table
from thanos.reporting.frame import COLUMNS, from_csv, to_csv
from thanos.reporting.run_files import read_listing
from thanos.reporting.suite_tables import comparison_tables
from thanos.reporting.tables import main_table


def test_one_row_per_run_and_metric(results: ResultsFolder) -> None:
    run = results.run(perplexity=33.94, alpha=0.1, acc=73.5, block_size=512)
    frame = results.collect([run]).results
    assert tuple(frame.columns) == COLUMNS
    values = {(row.metric, row.dataset): row.value for row in frame.itertuples()}
    assert values == {
        ("acc", "docs_choice"): 73.5,
        ("loss", "docs"): 3.5,
        ("mean_acc", "zero_shot"): 73.5,
        ("peak_memory_bytes", ""): 123456789,
        ("perplexity", "docs"): 33.94,
        ("raised_damping", ""): 0,
        ("relative_error", ""): 0.02,
        ("seconds", ""): 3.5,
        ("seconds.forward", ""): 2.0,
        ("seconds.gram", ""): 0.5,
        ("seconds.other", ""): 0.25,
        ("seconds.solve", ""): 0.75,
        ("sparsity", ""): 0.45,
    }
    first = frame[frame["metric"] == "perplexity"].iloc[0]
    assert first["run"].startswith("doc-llama/2-4/thanos-")
    assert (first["model"], first["method"], first["pattern"]) == ("doc-llama", "thanos", "2:4")
    assert (first["outlier_fraction"], first["seed"], first["nominal_sparsity"]) == (0.1, 0, 0.5)
    assert (first["block_size"], first["calibration_windows"], first["context"]) == (512, 64, 256)


def test_the_mean_accuracy_is_over_the_tasks(results: ResultsFolder) -> None:
    run = results.run(acc=70.0)
    file = results.file(run, layout.EVALUATIONS)
    content = read_json(file)
    one = content["tasks"]["docs_choice"]
    other = {**one, "acc": 50.0, "acc_stderr": 2.0, "n": 200}
    write_json(file, {**content, "tasks": {"docs_choice": one, "b": other}})
    mean = results.collect([run]).results.set_index("metric").loc["mean_acc"]
    assert (mean["value"], mean["n"], mean["source"]) == (60.0, 1000, "b+docs_choice")
    assert mean["stderr"] == pytest.approx(1.25)  # of (1.5, 2.0): √(1.5² + 2²) / 2


def test_tasks_without_an_accuracy_and_groups(results: ResultsFolder) -> None:
    """Every metric has a row and a column, whichever way is better; subtasks have rows alone."""
    runs = [results.run(method=method, acc=70.0) for method in ("thanos", "wanda")]
    for run, value in zip(runs, (40.0, 30.0), strict=True):
        file = results.file(run, layout.EVALUATIONS)
        content = read_json(file)
        made = {"provenance": content["tasks"]["docs_choice"]["provenance"], "n": 50, "version": 3}
        sums = {"value": value, "stderr": 1.0, "higher_is_better": True}
        brier = {"value": 0.5, "stderr": None, "higher_is_better": False}
        part = {"acc": 60.0, "acc_stderr": 2.0, "n": 30, "version": 1}
        tasks = {
            **content["tasks"],
            "gsm8k": {"metrics": {"exact_match (strict-match)": sums}, **made},
            "guesses": {"metrics": {"brier_score": brier}, **made},
            "mmlu": {"acc": 50.0, "acc_stderr": 1.0, "subtasks": {"mmlu_law": part}, **made},
            "ai2_arc": {"subtasks": {"arc_easy": part, "arc_challenge": part}, **made},
        }
        write_json(file, {**content, "tasks": tasks})

    frame = from_csv(to_csv(results.collect(runs).results))
    ours = frame[frame["method"] == "thanos"]
    rows = {(row.metric, row.dataset): row for row in ours.itertuples()}
    assert rows["exact_match (strict-match)", "gsm8k"].value == 40.0
    assert rows["exact_match (strict-match)", "gsm8k"].higher_is_better == 1
    assert rows["brier_score", "guesses"].higher_is_better == 0
    assert rows["subtask_acc", "mmlu/mmlu_law"].value == 60.0
    assert rows["mean_acc", "zero_shot"].value == pytest.approx((70 + 50 + 60 + 60) / 4)
    tables = {
        table.name: table for table in comparison_tables(frame, results.collect(runs).windows)
    }
    titles = list(dict.fromkeys(column.group for column in tables["tasks"].columns))
    accuracies = ("ai2_arc", "arc_challenge", "arc_easy", "docs_choice", "mmlu")
    assert titles == [
        *(f"{task} accuracy (%) ↑" for task in accuracies if task != "ai2_arc"),
        "gsm8k exact_match (strict-match) (%) ↑",
        "guesses brier_score ↓",
    ]


def test_pattern_texts_become_canonical(results: ResultsFolder) -> None:
    runs = [results.run(pattern="0.5"), results.run(pattern="dense", method="dense")]
    assert set(results.collect(runs).results["pattern"]) == {"unstructured:0.5", "dense"}


def test_sparsities_that_differ_in_late_digits_are_two(results: ResultsFolder) -> None:
    runs = [
        results.run(pattern=pattern, perplexity=value)
        for pattern, value in (("0.5", 10.0), ("0.50001", 11.0), ("0.00001", 9.0))
    ]
    found = results.collect(runs)
    patterns = {"unstructured:0.5", "unstructured:0.50001", "unstructured:1e-05"}
    assert set(found.results["pattern"]) == set(found.layers["pattern"]) == patterns
    assert set(from_csv(to_csv(found.results))["pattern"]) == patterns
    blocks = {
        block.title: [row.cells[0].text for row in block.rows]
        for block in main_table(found.results).blocks
    }
    assert blocks == {
        "Unstructured 0.001%": ["9.00"],
        "Unstructured 50%": ["10.00"],
        "Unstructured 50.001%": ["11.00"],
    }
    swept = ablation_table(found.results, "pattern").rows()
    assert [row.labels[0] for row in swept] == ["1e-05", "0.5", "0.50001"]


def test_the_order_of_the_runs_does_not_matter(
    demo_runs: list[Run], results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = results.collect(demo_runs)
    monkeypatch.setattr(collecting, "_AT_ONCE", 7)  # nor how many are read together
    other = results.collect(demo_runs[::-1] + demo_runs[:3])
    for part in ("results", "layers", "windows"):
        pd.testing.assert_frame_equal(getattr(one, part), getattr(other, part))


def test_a_suite_without_runs_has_an_empty_frame(results: ResultsFolder) -> None:
    found = results.collect([])
    assert found.results.empty
    assert tuple(from_csv(to_csv(found.results)).columns) == COLUMNS


def test_csv_gives_back_every_bit(demo_runs: list[Run], results: ResultsFolder) -> None:
    frame = results.collect([*demo_runs, results.run(perplexity=0.1 + 0.2, seed=5)]).results
    text = to_csv(frame)
    assert "0.30000000000000004" in text
    pd.testing.assert_frame_equal(from_csv(text), frame)
    assert to_csv(from_csv(text)) == text


def test_layers(results: ResultsFolder) -> None:
    layers = results.collect([results.run()]).layers
    assert len(layers) == 4 * 7
    last = layers.iloc[-1]
    assert (last["block"], last["layer_type"], last["rows"]) == (3, "mlp.down_proj", 256)


def test_efficiency_is_flattened(results: ResultsFolder) -> None:
    latency = {"latency": {"dense_ms": 4.0, "pruned_ms": None}, "device": "cpu"}
    rows = results.collect([results.run(latency=latency)]).results
    metrics = rows.set_index("metric")["value"]
    assert metrics["efficiency.latency.dense_ms"] == 4.0
    assert "efficiency.latency.pruned_ms" not in metrics
    assert not rows["metric"].str.contains("spec|provenance").any()


def test_sizes_and_the_form_of_a_timing(results: ResultsFolder) -> None:
    size = {"bytes": {"dense": 400, "packed": 225}}
    timing = {"form": "compact", "device": "cpu", "forward": {"dense_ms": 4.0}}
    rows = results.collect([results.run(size=size, latency=timing)]).results.set_index("metric")
    assert rows.loc["size.bytes.packed", "value"] == 225
    assert rows.loc["efficiency.forward.dense_ms", "source"] == "compact on cpu"


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (layout.EVALUATIONS, lambda text: text.replace("33.94", "NaN"), "is damaged"),
        (layout.EVALUATIONS, lambda text: text.replace("33.94", "1e999"), "is damaged"),
        (layout.EVALUATIONS, lambda text: text.replace("33.94", "33.95"), "is damaged"),
        (layout.PRUNED, lambda text: text.replace("0.02", "NaN"), "is damaged"),
        (layout.PRUNED, lambda text: text[: len(text) // 2], "is damaged"),
        (layout.EVALUATIONS, lambda text: '{"corpora": {}}', "has no content_sha256"),
        (layout.EVALUATIONS, None, "does not exist"),
        (layout.PRUNED, None, "does not exist"),
        (layout.LATENCIES, None, "does not exist"),
    ],
)
def test_a_bad_file_is_refused_by_name(
    results: ResultsFolder, kind: str, change: Callable[[str], str] | None, message: str
) -> None:
    run = results.run(latency={"device": "cpu"})
    file = results.file(run, kind)
    text = file.read_text()
    file.unlink()
    if change is not None:
        file.write_text(change(text))
    with pytest.raises(UserError, match=message) as caught:
        results.collect([run])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_result_that_lacks_a_number_names_its_run(results: ResultsFolder) -> None:
    run = results.run()
    write_json(results.file(run, layout.EVALUATIONS), {"corpora": {"docs": {"loss": 3}}})
    with pytest.raises(UserError, match=f"^{run.name}: a result lacks 'perplexity'"):
        results.collect([run])


def test_a_bad_list_of_runs_is_refused_by_name(results: ResultsFolder) -> None:
    file = results.write_list([results.run()])
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"runs.json is damaged"):
        read_listing(file)
    file.unlink()
    with pytest.raises(UserError, match=r"runs.json does not exist"):
        read_listing(file)


def test_tables_start_without_heavy_imports() -> None:
    code = (
        "import sys, thanos.reporting.collecting, thanos.reporting.tables,"
        "thanos.reporting.ablations,"
        "thanos.reporting.render, thanos.tracking;"
        "print([m for m in ('torch', 'matplotlib', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("part", ["results", "layers"])
def test_a_table_of_another_version_is_refused_in_one_line(
    demo_runs: list[Run], results: ResultsFolder, part: str
) -> None:
    frame = getattr(results.collect(demo_runs[:2]), part).drop(columns="channel_permutation")
    with pytest.raises(UserError, match="no column channel_permutation: another version wrote it"):
        from_csv(to_csv(frame))
