"""All tables and figures of a suite from fixtures: the paper's with gaps, an ablation's in full."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from thanos.reporting.frame import collect, collect_layers, collect_windows
from thanos.reporting.heatmap import component_figure
from thanos.reporting.layer_types import layer_type_table
from thanos.reporting.published import read_published
from thanos.reporting.render import to_csv, to_latex, to_markdown, to_terminal
from thanos.reporting.style import render
from thanos.reporting.suite_report import CAPTIONS, suite_report
from thanos.reporting.suite_tables import ablation_tables, comparison_tables
from thanos.suites import load_suite

WriteRun = Callable[..., Path]
PUBLISHED = Path(__file__).parents[2] / "results" / "reference" / "published_perplexity.csv"


@pytest.fixture
def paper_runs(write_run: WriteRun) -> list[Path]:
    """The paper suite as far as three models got: one whole, one half, one with its dense run."""
    folders = []
    configs = [run.config for run in load_suite("paper").runs]
    for number, config in enumerate(configs):
        model, method = config.model, config.method.name
        half_done = model.name == "llama-2-7b" and method not in ("dense", "wanda")
        only_dense = model.name == "opt-350m" and not config.dense
        if model.name not in ("opt-125m", "llama-2-7b", "opt-350m") or half_done or only_dense:
            continue
        dense = {"opt-125m": 27.66, "llama-2-7b": 5.47, "opt-350m": 30.0}[model.name]
        value = dense * (1 if config.dense else 1.2 + 0.01 * (number % 20))
        options = {"path": model.path, "corpus": "wikitext2", "seqlen": 2048, "acc": 50.0}
        options |= {"alpha": config.outlier_fraction}
        folders.append(write_run(model.name, config.pattern, method, value, **options))
    return folders


def test_the_paper_suite_is_shown_with_its_gaps(paper_runs: list[Path]) -> None:
    frame = collect(paper_runs)
    tables = comparison_tables(
        frame, collect_windows(paper_runs), read_published(PUBLISHED), "The paper's main table"
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


@pytest.fixture
def grid_runs(write_run: WriteRun) -> list[Path]:
    folders = [write_run(pattern="dense", method="dense", perplexity=20.0)]
    for metric_place, metric in enumerate(("magnitude", "wanda", "sparsegpt")):
        for scope in ("layer", "residual"):
            for update in ("none", "sequential", "joint"):
                if (scope, update) == ("residual", "none"):
                    continue
                options = {"metric": metric, "scope": scope, "update": update}
                folders.append(
                    write_run(pattern="0.5", perplexity=24.0 - metric_place, options=options)
                )
    return folders


def test_the_component_grid_is_a_heat_map(grid_runs: list[Path]) -> None:
    figure = component_figure(collect(grid_runs))
    panel = figure.axes[0]
    assert panel.get_title() == "doc-llama, Unstructured 50%"
    assert [tick.get_text() for tick in panel.get_yticklabels()] == [
        *("magnitude", "wanda", "sparsegpt")
    ]
    texts = [text.get_text() for text in panel.texts]
    assert texts.count("20") == 5  # magnitude: 24 against 20 is 20% above dense
    assert texts[-2:] == ["layer", "residual"]
    assert all(len(content) > 1000 for content in render(figure).values())


def test_every_layer_type_has_its_best_value(write_run: WriteRun) -> None:
    runs = [write_run(alpha=alpha, perplexity=9.0) for alpha in (0.0, 0.1, 0.2)]
    layers = collect_layers(runs)
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


def test_an_ablation_shows_layers_that_needed_more_damping(write_run: WriteRun) -> None:
    runs = [write_run(perplexity=9.0 + size / 64, block_size=size) for size in (64, 128)]
    record = json.loads((runs[0] / "pruning.json").read_text())
    record["layers"][0]["damping"] = 0.1
    (runs[0] / "pruning.json").write_text(json.dumps(record))
    data = collect(runs), collect_layers(runs), collect_windows(runs)
    tables = {table.name: table for table in ablation_tables(*data, ["method.block_size"], "B")}
    assert list(tables) == [
        *("main-perplexity-docs", "layer-types-block-size", "raised-damping", "seconds")
    ]
    assert [row.cells[0].text for row in tables["raised-damping"].rows()] == ["1", "0"]
    assert tables["main-perplexity-docs"].title == "B: docs perplexity"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_all_tables_of_suites_compile(
    paper_runs: list[Path], grid_runs: list[Path], tmp_path: Path
) -> None:
    tables = comparison_tables(
        collect(paper_runs), collect_windows(paper_runs), read_published(PUBLISHED), "Paper"
    )
    axes = ["method.metric", "method.scope", "method.update"]
    data = collect(grid_runs), collect_layers(grid_runs), collect_windows(grid_runs)
    tables += ablation_tables(*data, axes, "Components")
    source = tmp_path / "tables.tex"
    body = "\\clearpage\n".join(map(to_latex, tables))
    source.write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}" + body + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_report_is_one_page_that_needs_no_network(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run()
    record = json.loads((run / "pruning.json").read_text())
    record["provenance"] = {
        "source": {"revision": "5eed", "dirty": True},
        "lock_sha256": "10cc",
        "hardware": {"machine": "x86_64", "cores": 2},
        "versions": {"torch": "2.13.0"},
        "python": "3.11.7",
        "started": "2026-01-01T00:00:00Z",
        "ended": "2026-01-01T00:01:00Z",
    }
    (run / "pruning.json").write_text(json.dumps(record))
    suite = tmp_path / "suite"
    for folder in ("tables", "figures"):
        (suite / folder).mkdir(parents=True)
    (suite / "figures" / "main.svg").write_text("<svg/>")
    (suite / "figures" / CAPTIONS).write_text(json.dumps({"main": "What <it> shows."}))
    text = suite_report(suite, "A & B", collect([run]), [run])
    assert text.startswith("<!doctype html>")
    assert "<h1>A &amp; B</h1>" in text
    assert "What &lt;it&gt; shows." in text
    assert "5eed, with uncommitted changes" in text
    assert "torch 2.13.0" in text
    assert "doc-llama (thanos/testbed/doc-llama)" in text
    assert 'src="data:image/svg+xml;base64,' in text
    assert "http" not in text
    assert "<script" not in text
