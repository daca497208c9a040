"""Shares of the dense model's values, on paper."""

import pandas as pd
import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.reporting.figures import main_figure
from thanos.reporting.measures import Measure
from thanos.reporting.recovery import recovered
from thanos.reporting.render import to_markdown
from thanos.reporting.suite_tables import comparison_tables


@pytest.fixture
def runs(results: ResultsFolder) -> list[Run]:
    return [
        results.run(pattern="dense", method="dense", perplexity=20.0, acc=80.0),
        results.run(method="wanda", perplexity=30.0, acc=60.0),
        results.run(method="thanos", perplexity=25.0, acc=72.0),
    ]


def shares(frame: pd.DataFrame, method: str) -> dict[str, float]:
    rows = frame[(frame["method"] == method) & frame["share_of_dense"].notna()]
    return dict(zip(rows["metric"], rows["share_of_dense"], strict=True))


def test_every_metric_that_the_dense_run_has_gets_a_share(
    results: ResultsFolder, runs: list[Run]
) -> None:
    frame = results.collect(runs).results
    assert shares(frame, "thanos") == {
        "perplexity": 1.25, "loss": 1.0, "acc": 0.9, "mean_acc": 0.9
    }  # fmt: skip
    assert shares(frame, "wanda")["perplexity"] == 1.5
    assert set(shares(frame, "dense").values()) == {1.0}


def test_only_what_was_measured_alike_is_compared(results: ResultsFolder, runs: list[Run]) -> None:
    others = [
        results.run(method="thanos", perplexity=25.0, seqlen=512),
        results.run(method="thanos", perplexity=25.0, corpus="other"),
        results.run("doc-opt", method="thanos", perplexity=25.0),
    ]
    frame = results.collect([*runs, *others]).results
    names = {run.name for run in others}
    assert frame.loc[frame["run"].isin(names), "share_of_dense"].isna().all()


def test_the_recovery_table(results: ResultsFolder, runs: list[Run]) -> None:
    found = results.collect(runs)
    tables = comparison_tables(found.results, found.windows, title="Mine")
    recovery = next(table for table in tables if table.name == "recovery")
    assert recovery.title == "Mine: share of the dense model's quality"
    lines = [line for line in to_markdown(recovery).splitlines() if line.startswith("| ")]
    assert lines[0].count("perplexity (× dense) ↓") == 1
    assert lines[0].count("zero-shot mean accuracy (% of dense) ↑") == 1
    assert "| Dense |  | 1.00 | 100.0 |" in lines
    assert "| Wanda | 50.0% | 1.50 | 75.00 |" in lines
    assert "| Thanos | 50.0% | **1.25** | **90.00** |" in lines


def test_without_a_dense_run_there_is_no_recovery(results: ResultsFolder) -> None:
    runs = [results.run()]
    frame = results.collect(runs).results
    assert set(recovered(frame)["metric"]) == {
        *("loss", "peak_memory_bytes", "raised_damping", "relative_error", "seconds", "sparsity"),
        *("seconds.forward", "seconds.gram", "seconds.other", "seconds.solve"),
    }
    tables = comparison_tables(frame, results.collect(runs).windows)
    assert [table.name for table in tables] == ["main", "seconds"]


def test_divergences_are_measures_by_option(results: ResultsFolder) -> None:
    """Marked on the same windows; a dense model has none, and no share of one makes sense."""
    runs = [
        results.run(pattern="dense", method="dense", perplexity=20.0),
        results.run(method="wanda", perplexity=30.0, divergence=0.3),
        results.run(method="thanos", perplexity=25.0, divergence=0.2),
    ]
    found = results.collect(runs)
    tables = {t.name: t for t in comparison_tables(found.results, found.windows, title="Mine")}
    lines = to_markdown(tables["main"]).splitlines()
    assert any("docs divergence (nats) ↓" in line for line in lines)
    assert any("docs top token as dense (%) ↑" in line for line in lines)
    assert "| Dense |  | 20.00 | — | — |" in lines
    assert "| Wanda | 50.0% | 30.00 | 0.300 | 60.00 |" in lines
    assert "| Thanos | 50.0% | **25.00** | **0.200** | **70.00** |" in lines
    assert sum("KL(dense ‖ model)" in line for line in lines) == 1
    assert "divergence" not in to_markdown(tables["recovery"])
    main_figure(found.results, Measure("divergence", "docs"))
