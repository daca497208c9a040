"""All tables and figures of a suite from fixtures: the paper's with gaps, an ablation's in full."""

import shutil
import subprocess
from pathlib import Path

import pytest
from results_folder import ResultsFolder, layers_of

from thanos.config import Run
from thanos.reporting.heatmap import component_figure
from thanos.reporting.latex import to_latex
from thanos.reporting.layer_types import layer_type_table
from thanos.reporting.layers import layer_tables
from thanos.reporting.published import read_published
from thanos.reporting.render import to_csv, to_markdown, to_terminal
from thanos.reporting.style import render
from thanos.reporting.suite_tables import ablation_tables, comparison_tables
from thanos.workflow.suites import load_suite

PUBLISHED = Path(__file__).parents[2] / "results" / "reference" / "published_perplexity.csv"


@pytest.fixture
def paper_runs(results: ResultsFolder) -> list[Run]:
    """The paper suite as far as three models got: one whole, one half, one with its dense run."""
    runs = []
    for number, run in enumerate(load_suite("paper").runs):
        model, method = run.columns["model"], run.columns["method"]
        half_done = model == "llama-2-7b" and method not in ("dense", "wanda")
        only_dense = model == "opt-350m" and run.pruning is not None
        if model not in ("opt-125m", "llama-2-7b", "opt-350m") or half_done or only_dense:
            continue
        dense = {"opt-125m": 27.66, "llama-2-7b": 5.47, "opt-350m": 30.0}[model]
        value = dense * (1.2 + 0.01 * (number % 20) if run.pruning else 1)
        runs.append(results.finish(run, value, acc=50.0))
    return runs


def test_the_paper_suite_is_shown_with_its_gaps(
    paper_runs: list[Run], results: ResultsFolder
) -> None:
    found = results.collect(paper_runs)
    tables = comparison_tables(
        found.results, found.windows, read_published(PUBLISHED), "The paper's main table"
    )
    names = [table.name for table in tables]
    assert names[0] == "main"
    assert {"differences-wikitext2", "recovery", "seconds"} <= set(names)
    text = to_markdown(tables[0])
    assert "—: no result." in text
    assert "opt-125m published" in text
    assert "opt-125m Δ%" in text
    assert "Dense gate missed: opt-350m has 30.00" in text
    assert "Dense gate ok: opt-125m has 27.66" in text
    assert "not a valid n:m tensor" in text
    for table in tables:
        assert max(map(len, to_terminal(table).splitlines())) <= 80
        assert to_csv(table).count("\n") == 1 + sum(1 for _ in table.rows())


@pytest.mark.parametrize(
    ("pattern", "allocation", "said"),
    [("4:8", "owl", True), ("4:8", "uniform", False), ("unstructured:0.5", "error", False)],
)
def test_mixed_groups_are_explained(
    results: ResultsFolder, pattern: str, allocation: str, said: bool
) -> None:
    options = {"allocation": allocation, "allocation_mixed": pattern == "4:8"}
    runs = [results.run("a", pattern), results.run("a", pattern, options=options)]
    found = results.collect(runs)
    (table, *_) = comparison_tables(found.results, found.windows)
    assert ("is mixed: layers may keep another n" in to_markdown(table)) == said


@pytest.fixture
def grid_runs(results: ResultsFolder) -> list[Run]:
    runs = [results.run(pattern="dense", method="dense", perplexity=20.0)]
    for metric_place, metric in enumerate(("magnitude", "wanda", "sparsegpt")):
        for scope in ("layer", "residual"):
            for update in ("none", "sequential", "joint"):
                if (scope, update) == ("residual", "none"):
                    continue
                options = {"metric": metric, "scope": scope, "update": update}
                runs.append(
                    results.run(pattern="0.5", perplexity=24.0 - metric_place, options=options)
                )
    return runs


def test_the_component_grid_is_a_heat_map(grid_runs: list[Run], results: ResultsFolder) -> None:
    figure = component_figure(results.collect(grid_runs).results)
    panel = figure.axes[0]
    assert panel.get_title() == "doc-llama, Unstructured 50%"
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [
        *("magnitude", "wanda", "sparsegpt")
    ]
    texts = [text.get_text() for text in panel.texts]
    assert texts.count("20") == 5  # magnitude: 24 against 20 is 20% above dense
    assert texts[-2:] == ["layer", "residual"]
    assert all(len(content) > 1000 for content in render(figure).values())


def test_every_layer_type_has_its_best_value(results: ResultsFolder) -> None:
    runs = [results.run(alpha=alpha, perplexity=9.0) for alpha in (0.0, 0.1, 0.2)]
    layers = results.collect(runs).layers
    # Queries are best at 0.1, all others at 0.2.
    queries = layers["layer_type"] == "self_attn.q_proj"
    layers["relative_error"] = 1.0 - layers["outlier_fraction"]
    layers.loc[queries, "relative_error"] = (layers["outlier_fraction"] - 0.1).abs()
    table = layer_type_table(layers, "outlier_fraction")
    assert table is not None
    best = {row.labels[0]: row.cells[0].text for row in table.rows()}
    assert best["self_attn.q_proj"] == "0.1"
    assert set(best.values()) == {"0.1", "0.2"}
    assert layer_type_table(layers[layers["outlier_fraction"] == 0], "outlier_fraction") is None


def test_an_ablation_shows_layers_that_needed_more_damping(results: ResultsFolder) -> None:
    layers = layers_of(0.5, 0.01)
    raised = [{**layers[0], "damping": 0.1}, *layers[1:]]
    runs = [
        results.run(perplexity=10.0, block_size=64, layers=raised),
        results.run(perplexity=11.0, block_size=128),
    ]
    found = results.collect(runs)
    data = found.results, found.layers, found.windows
    tables = {table.name: table for table in ablation_tables(*data, ["method.block_size"], "B")}
    assert list(tables) == [
        *("main-perplexity-docs", "layer-types-block-size", "raised-damping", "seconds")
    ]
    assert [row.cells[0].text for row in tables["raised-damping"].rows()] == ["1", "0"]
    assert tables["main-perplexity-docs"].title == "B: docs perplexity"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_all_tables_of_suites_compile(
    paper_runs: list[Run], grid_runs: list[Run], results: ResultsFolder, tmp_path: Path
) -> None:
    found = results.collect(paper_runs)
    tables = comparison_tables(found.results, found.windows, read_published(PUBLISHED), "Paper")
    tables += layer_tables(found.layers)
    axes = ["method.metric", "method.scope", "method.update"]
    found = results.collect(grid_runs)
    data = found.results, found.layers, found.windows
    tables += ablation_tables(*data, axes, "Components")
    source = tmp_path / "tables.tex"
    body = "\\clearpage\n".join(map(to_latex, tables))
    source.write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "too large for page" not in done.stdout
