"""Tables that can be checked on paper."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.errors import UserError
from thanos.reporting.ablations import ablation_table
from thanos.reporting.differences import difference_tables
from thanos.reporting.grid import Table
from thanos.reporting.labels import method_label, pattern_label
from thanos.reporting.measures import Measure
from thanos.reporting.published import read_published
from thanos.reporting.render import to_csv, to_markdown
from thanos.reporting.tables import main_table, main_tables


def body(table: Table) -> list[str]:
    """The Markdown lines of the table proper, without header and footnotes."""
    lines = [line for line in to_markdown(table).splitlines() if line.startswith("|")]
    return [" ".join(line.replace("|", " ").split()) for line in lines[2:]]


def test_the_main_table(demo_runs: list[Run], results: ResultsFolder) -> None:
    found = results.collect(demo_runs)
    table = main_table(
        found.results,
        [Measure("perplexity", "docs")],
        windows=found.windows,
    )
    assert body(table) == [
        "**Dense**",
        "Dense 32.56 40.70",
        "**Unstructured 50%**",
        "Magnitude 50.0% 34.54 43.17",
        "Wanda 50.0% 34.01 42.51",
        "SparseGPT 50.0% 33.43 41.79",
        "Thanos 50.0% **33.15** **41.44**",
        "**Structured 30%**",
        "Magnitude 30.0% 122.2 152.8",
        "Wanda 30.0% 56.90 71.12",
        "SparseGPT 30.0% 37.66 47.07",
        "Thanos 30.0% 35.89 44.86",
        "Thanos (α=0.1) 30.0% **35.76** **44.70**",
        "**4:8**",
        "Magnitude 50.0% 36.44 45.55",
        "Wanda 50.0% 36.20 45.25",
        "SparseGPT 50.0% 33.78 42.23",
        "Thanos 50.0% **33.56** **41.95**",
        "Thanos (α=0.1) 45.0% † 33.38 41.73",
        "**2:4**",
        "Magnitude 50.0% 38.09 47.61",
        "Wanda 50.0% 38.10 47.62",
        "SparseGPT 50.0% 34.43 43.04",
        "Thanos 50.0% **33.94** **42.42**",
        "Thanos (α=0.1) 45.0% † 33.67 42.09",
    ]
    assert any("not a valid n:m tensor" in note for note in table.footnotes)
    assert "Perplexity of docs: windows of 256 tokens." in table.footnotes


def test_accuracy_is_best_when_high(results: ResultsFolder) -> None:
    runs = [results.run(method="wanda", acc=60.0), results.run(method="thanos", acc=71.0)]
    table = main_table(results.collect(runs).results, [Measure("mean_acc", "zero_shot")])
    assert body(table) == ["**2:4**", "Wanda 50.0% 60.00", "Thanos 50.0% **71.00**"]
    assert table.columns[0].group == "zero-shot mean accuracy (%) ↑"
    assert "Accuracy: mean over docs_choice." in table.footnotes


def test_gaps_and_lonely_cells(results: ResultsFolder) -> None:
    runs = [
        results.run("a", method="wanda", perplexity=20.0),
        results.run("a", method="thanos", perplexity=10.0),
        results.run("b", method="thanos", perplexity=30.0),
    ]
    found = results.collect(runs)
    table = main_table(found.results, windows=found.windows)
    assert body(table) == ["**2:4**", "Wanda 50.0% 20.00 —", "Thanos 50.0% **10.00** 30.00"]
    assert "—: no result." in table.footnotes
    assert to_csv(table).splitlines()[1] == "2:4,Wanda,50.0%,20.0,"


def test_bold_needs_more_than_chance(results: ResultsFolder) -> None:
    runs = [
        results.run(method="wanda", perplexity=9.5),
        # Better by 1% on average; on single windows by up to 30% better or worse.
        results.run(method="thanos", perplexity=9.4, noise=lambda window: 0.3 * (-1) ** window),
    ]
    found = results.collect(runs)
    table = main_table(found.results, windows=found.windows)
    assert body(table)[1:] == ["Wanda 50.0% 9.50", "Thanos 50.0% 9.40"]
    # Without the losses of the windows one seed proves nothing.
    runs = [results.run("b", method="wanda", perplexity=9.5), results.run("b", perplexity=4.0)]
    assert "**4.00**" not in body(main_table(results.collect(runs).results))[2]


def test_mean_and_interval_over_seeds(results: ResultsFolder) -> None:
    runs = [
        results.run(perplexity=value, seed=seed) for seed, value in enumerate((10.0, 11.0, 12.0))
    ]
    table = main_table(results.collect(runs).results)
    # t(0.975, 2) = 4.3027, standard deviation 1: 4.3027 / sqrt(3) = 2.484
    assert body(table)[1] == "Thanos 50.0% 11.00 ± 2.48"
    (cell,) = table.blocks[0].rows[0].cells
    assert cell.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert "Mean ± 95% interval (Student t) over 3 seeds." in table.footnotes


def test_repeated_dense_runs_are_one_observation(results: ResultsFolder) -> None:
    runs = [results.run("doc-llama", "dense", "dense", 9.0, label=name) for name in ("a", "b")]
    assert body(main_table(results.collect([*runs, results.run()]).results))[1] == "Dense 9.00"


def test_what_is_not_comparable_is_refused(results: ResultsFolder) -> None:
    one, other = results.run(block_size=128), results.run(block_size=256, seed=1)
    with pytest.raises(UserError, match="differ in block_size"):
        main_table(results.collect([one, other]).results)
    long_windows = results.run(method="wanda", seqlen=512)
    with pytest.raises(UserError, match="different window lengths"):
        main_table(results.collect([one, long_windows]).results)
    frozen = replace(one.pruning, skip=("lm_head",))
    again = results.finish(replace(one, evaluation=replace(one.evaluation, model=frozen)), 34.0)
    with pytest.raises(UserError, match="several runs for one seed"):
        main_table(results.collect([one, again]).results)


def test_options_of_the_pass_make_a_row(results: ResultsFolder) -> None:
    better = results.run(perplexity=33.0, options={"refine_steps": 30})
    plain = results.run(perplexity=34.0, options={"refine_steps": 0})
    runs = [better, plain]
    found = results.collect(runs)
    assert body(main_table(found.results, windows=found.windows))[1:] == [
        "Thanos 50.0% 34.00",
        "Thanos (refine 30) 50.0% **33.00**",
    ]


def test_a_method_is_called_by_its_label(results: ResultsFolder) -> None:
    """Its options make no column, and it stands beside the method that it is made of."""
    runs = [
        results.run(perplexity=34.0, label="Thanos"),  # its own name
        results.run(perplexity=33.0, label="tuned", options={"damping": 0.05}),
        results.run(perplexity=32.0, label="tuned", options={"damping": 0.05}, alpha=0.1),
    ]
    found = results.collect(runs)
    assert body(main_table(found.results))[1:] == [
        "Thanos 50.0% 34.00",
        "tuned 50.0% 33.00",
        "tuned (α=0.1) 45.0% † 32.00",
    ]
    (differences,) = difference_tables(found.results, found.windows)
    assert [row.labels for row in differences.rows()] == [("tuned",), ("tuned (α=0.1)",)]


def test_wide_suites_get_a_table_per_measure(
    demo_runs: list[Run], results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = results.collect(demo_runs).results
    assert [table.name for table in main_tables(frame)] == ["main"]
    monkeypatch.setattr("thanos.reporting.tables.MOST_COLUMNS", 2)
    names = [table.name for table in main_tables(frame)]
    assert names == ["main-perplexity-docs", "main-mean_acc-zero_shot"]


PUBLISHED = """\
source,context,model,method,pattern,perplexity
"SLiM, Table 13",2048,facebook/opt-125m,dense,dense,27.66
"SLiM, Table 13",2048,facebook/opt-125m,wanda,unstructured:0.5,39.3
Other,4096,facebook/opt-125m,thanos,unstructured:0.5,1
Repo,2048,facebook/opt-125m,thanos-a0.1,structured:0.3,50
"""


def test_published_values_stand_beside_ours(results: ResultsFolder, tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text(PUBLISHED)
    (tmp_path / "opt-125m").mkdir()  # a local copy is known by its name
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "opt-125m" / name).write_text("{}")
    setup = {"path": str(tmp_path / "opt-125m"), "corpus": "wikitext2", "seqlen": 2048}
    runs = [
        results.run("opt", "dense", "dense", 27.66, **setup),
        results.run("opt", "0.5", "wanda", 40.0, **setup),
        results.run("opt", "0.5", "thanos", 38.0, **setup),
        results.run("opt", "structured:0.3", "thanos", 55.0, alpha=0.1, **setup),
    ]
    published = read_published(tmp_path / "published.csv")
    found = results.collect(runs)
    table = main_table(found.results, published=published, windows=found.windows)
    assert [column.name for column in table.columns] == ["opt", "opt published", "opt Δ%"]
    assert body(table) == [
        "**Dense**",
        "Dense 27.66 27.66 +0.0",
        "**Unstructured 50%**",
        "Wanda 50.0% 40.00 39.30 +1.8",
        "Thanos 50.0% **38.00** — —",
        "**Structured 30%**",
        "Thanos (α=0.1) 30.0% 55.00 50.00 +10.0",
    ]
    assert any("SLiM, Table 13" in note for note in table.footnotes)
    assert table.footnotes[0] == (
        "Dense gate ok: opt has 27.66, published 27.66 (+0.0%, tolerance 2%, SLiM, Table 13)."
    )


def test_a_bad_published_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text(PUBLISHED.replace("39.3", "many"))
    with pytest.raises(UserError, match=r"published.csv, line 3"):
        read_published(tmp_path / "published.csv")


def test_ablation_over_block_size(results: ResultsFolder) -> None:
    values = {8: 12.0, 64: 10.0, 512: 11.0}
    runs = [results.run(block_size=size, perplexity=value) for size, value in values.items()]
    runs += [results.run(pattern="4:8", block_size=64, perplexity=9.0)]
    runs += [results.run(pattern="dense", method="dense", perplexity=8.0)]
    found = results.collect(runs)
    table = ablation_table(found.results, "method.block_size", windows=found.windows)
    assert [(column.group, column.name) for column in table.columns] == [
        ("doc-llama, 4:8", "Thanos"),
        ("doc-llama, 2:4", "Thanos"),
    ]
    assert body(table) == [
        "**Dense**",
        "dense 8.00 8.00",
        "**Pruned**",
        "8 — 12.00",
        "64 9.00 **10.00**",
        "512 — 11.00",
    ]


def test_ablation_over_sparsity_compares_methods(results: ResultsFolder) -> None:
    runs = [
        results.run(pattern=f"{p}", method=method, perplexity=10 * p + extra)
        for p in (0.3, 0.5)
        for method, extra in (("wanda", 1.0), ("thanos", 0.0))
    ]
    found = results.collect(runs)
    table = ablation_table(found.results, "nominal_sparsity", windows=found.windows)
    assert table.columns[0].group == "doc-llama, Unstructured"
    assert body(table) == ["**Pruned**", "0.3 4.00 **3.00**", "0.5 6.00 **5.00**"]


def test_ablation_over_a_grid_and_outliers(results: ResultsFolder) -> None:
    runs = [
        results.run("a", "0.5", perplexity=value, options={"metric": metric, "scope": "row"})
        for metric, value in (("magnitude", 9.0), ("wanda", 8.0))
    ]
    found = results.collect(runs)
    table = ablation_table(found.results, ["mask_metric", "mask_scope"], windows=found.windows)
    assert table.stub == ("mask metric", "mask scope")
    assert body(table) == ["**Pruned**", "magnitude row 9.00", "wanda row **8.00**"]
    runs = [results.run(perplexity=9.0 + a, alpha=a) for a in (0.0, 0.2)]
    found = results.collect(runs)
    table = ablation_table(found.results, "outlier_fraction", windows=found.windows)
    assert [column.name for column in table.columns] == ["Thanos"]
    # Rows kept dense leave 2:4 less sparse: nothing there is at the same terms.
    assert body(table) == ["**Pruned**", "0 9.00", "0.2 9.20"]
    assert any("(sparsity 40% at α = 0.2, nominal 50%)" in note for note in table.footnotes)


def test_outlier_rows_by_either_score(results: ResultsFolder) -> None:
    runs = [
        results.run(pattern="structured:0.3", perplexity=value, alpha=alpha, outlier_score=score)
        for alpha, score, value in ((0.0, "exact", 9.0), (0.1, "exact", 8.0), (0.1, "separable", 7))
    ]
    found = results.collect(runs)
    table = ablation_table(found.results, "outlier_fraction", windows=found.windows)
    assert [column.name for column in table.columns] == ["Thanos", "Thanos (separable score)"]
    # Without outlier rows there is nothing to rank: both begin there.
    assert body(table) == ["**Pruned**", "0 9.00 9.00", "0.1 **8.00** **7.00**"]


def test_outlier_rows_are_compared_at_the_sparsity_that_layers_reach(
    results: ResultsFolder,
) -> None:
    runs = [
        results.run(pattern=pattern, alpha=alpha, method=method, perplexity=value + extra)
        for pattern, alpha, value in (("4:8", 0.0, 9.0), ("3:8", 0.2, 8.0), ("2:8", 1 / 3, 8.5))
        for method, extra in (("wanda", 1.0), ("thanos", 0.0))
    ]
    runs += [results.run(pattern="1:8", alpha=0.2, perplexity=7.0)]  # 70% of the layer
    found = results.collect(runs)
    axes = ("outlier_fraction", "pattern")
    table = ablation_table(found.results, axes, windows=found.windows)
    assert [(c.group, c.name) for c in table.columns] == [
        *(("doc-llama, n:8", "Wanda"), ("doc-llama, n:8", "Thanos"))
    ]
    assert body(table) == [
        "**Pruned**",
        "0 0.5 10.00 9.00",
        "0.2 0.625 **9.00** **8.00**",
        "0.2 0.875 — 7.00",
        "0.333333333333 0.75 9.50 8.50",
    ]


def test_calibration_sources_are_never_averaged(results: ResultsFolder) -> None:
    runs = [
        results.run(source=source, windows=windows, perplexity=9.0 - windows / 64)
        for source in ("c4", "docs")
        for windows in (1, 64)
    ]
    table = ablation_table(results.collect(runs).results, "calibration.windows")
    assert [column.group for column in table.columns] == [
        "doc-llama, 2:4, c4",
        "doc-llama, 2:4, docs",
    ]
    assert body(table)[1:] == ["1 8.98 8.98", "64 8.00 8.00"]


def test_calibration_sources_are_compared_at_equal_sizes(results: ResultsFolder) -> None:
    runs = [
        results.run(source=source, windows=windows, perplexity=value)
        for source, windows, value in (("c4", 128, 8.0), ("docs", 32, 9.0), ("docs", 128, 8.5))
    ]
    found = results.collect(runs)
    table = ablation_table(found.results, "calibration.source", windows=found.windows)
    assert [column.group for column in table.columns] == [
        *("doc-llama, 2:4, 32 windows", "doc-llama, 2:4, 128 windows")
    ]
    assert body(table)[1:] == ["c4 — **8.00**", "docs 9.00 8.50"]


def test_an_unknown_axis_is_refused(results: ResultsFolder) -> None:
    with pytest.raises(UserError, match="no column colour"):
        ablation_table(results.collect([results.run()]).results, "colour")


def test_labels() -> None:
    texts = ["2:4", "structured:0.3", "1e-05", "dense", "0.50001", "0.5", "4:8"]
    ordered = sorted(map(pattern_label, texts))
    assert [label.title for label in ordered] == [
        *("Dense", "Unstructured 0.001%", "Unstructured 50%", "Unstructured 50.001%"),
        *("Structured 30%", "4:8", "2:4"),
    ]
    assert pattern_label("unstructured:0.50").text == "unstructured:0.5"
    assert pattern_label("0.00001").text == "unstructured:1e-05"
    row = {"method": "sparsegpt", "outlier_fraction": 0.1, "refine_steps": 30}
    assert method_label(row) == "SparseGPT (α=0.1, refine 30)"
    assert method_label({"method": "mine"}) == "mine"
    for text in ("", "1.5", "4:2", "0:4", "semi:0.5", "unstructured-0.5"):
        with pytest.raises(UserError, match="pattern"):
            pattern_label(text)
