"""Paired differences, with numbers that can be checked on paper."""

import math

import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.reporting.differences import difference_tables
from thanos.reporting.evidence import Evidence
from thanos.reporting.measures import Measure, Observation, with_variants
from thanos.reporting.render import to_markdown

NAN = float("nan")
PERPLEXITY = Measure("perplexity", "docs")


def observed(results: ResultsFolder, runs: list[Run]) -> list[Observation]:
    frame = PERPLEXITY.rows(results.collect(runs).results)
    return [Observation(row.seed, row.run, row.value, NAN) for row in frame.itertuples()]


def test_one_seed_is_paired_over_windows(results: ResultsFolder) -> None:
    one = results.run(method="thanos", perplexity=10.0)
    # Losses differ by 0.1 and 0.3 in turn: mean 0.2, standard deviation 0.1054 over ten windows.
    other = results.run(
        method="wanda", perplexity=10.0, noise=lambda window: 0.2 + 0.1 * (-1) ** window
    )
    evidence = Evidence(PERPLEXITY, results.collect([one, other]).windows)
    found = evidence.difference(observed(results, [other]), observed(results, [one]))
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    # t(0.975, 9) = 2.2622
    assert found.half_width == pytest.approx(2.2622 * 0.105409 / math.sqrt(10), rel=1e-4)
    assert evidence.better(observed(results, [one]), observed(results, [other]))
    assert not evidence.better(observed(results, [other]), observed(results, [one]))
    assert not evidence.better(observed(results, [one]), observed(results, [one]))


def test_several_seeds_are_paired_over_seeds(results: ResultsFolder) -> None:
    one = [results.run(perplexity=math.exp(v), seed=s) for s, v in enumerate((1.0, 2.0, 3.0))]
    other = [
        results.run(method="wanda", perplexity=math.exp(v), seed=s)
        for s, v in enumerate((1.1, 2.2, 3.3))
    ]
    found = Evidence(PERPLEXITY).difference(observed(results, other), observed(results, one))
    assert found is not None
    # Unpaired the seeds would drown the difference; t(0.975, 2) = 4.3027, deviation 0.1.
    assert found.mean == pytest.approx(0.2)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3))
    assert not found.supported


def test_what_shares_no_seed_is_not_compared() -> None:
    one, other = Observation(0, "a", 1.0, NAN), Observation(1, "b", 2.0, NAN)
    assert Evidence(PERPLEXITY).difference([one], [other]) is None
    assert not Evidence(PERPLEXITY).better([one], [other])


def test_accuracies_have_their_standard_errors() -> None:
    evidence = Evidence(Measure("mean_acc", "zero_shot"))
    good, close, bad = (Observation(0, name, v, 1.0) for name, v in zip("abc", (72, 70, 60)))  # noqa: B905
    assert evidence.better([good], [bad])
    assert not evidence.better([good], [close])  # 2 is less than 1.96 · √2
    assert not evidence.better([bad], [good])


def test_the_table_of_a_comparison(results: ResultsFolder) -> None:
    runs = [
        results.run(model, "2:4", method, value)
        for model, values in {"a": (10.0, 11.0), "b": (20.0, 19.0)}.items()
        for method, value in zip(("thanos", "wanda"), values, strict=True)
    ]
    found = results.collect(runs)
    (table,) = difference_tables(found.results, found.windows)
    lines = to_markdown(table).splitlines()
    assert "| Wanda | **+10.00** ± 0.00 | **-5.00** ± 0.00 |" in lines
    assert not any(line.startswith("| Thanos") for line in lines)


def test_the_table_of_an_ablation(results: ResultsFolder) -> None:
    runs = [
        results.run("a", "2:4", method, value + windows / 64, windows=windows)
        for method, value in (("thanos", 10.0), ("sparsegpt", 11.0))
        for windows in (64, 128)
    ]
    found = results.collect(runs)
    (table,) = difference_tables(found.results, found.windows, ["calibration.windows"])
    assert [(column.group, column.name) for column in table.columns] == [("a, 2:4", "SparseGPT")]
    assert [row.cells[0].text for row in table.rows()] == ["+9.09", "+8.33"]


def test_methods_are_compared_on_the_same_outlier_rows(results: ResultsFolder) -> None:
    values = {("wanda", "exact"): 12.0, ("wanda", "separable"): 11.0}
    values |= {("thanos", "exact"): 10.0, ("thanos", "separable"): 9.0}
    runs = [
        results.run("a", "structured:0.3", method, value, alpha=0.1, outlier_score=score)
        for (method, score), value in values.items()
    ]
    found = results.collect(runs)
    (table,) = difference_tables(found.results, found.windows, ["outlier_fraction"])
    (row,) = table.rows()
    named = {column.name: cell.text for column, cell in zip(table.columns, row.cells, strict=True)}
    assert named == {
        "Wanda": "+20.00",
        "Wanda (separable score)": "+22.22",
        "Thanos (separable score)": "-10.00",
    }


def test_without_a_reference_there_is_no_table(results: ResultsFolder) -> None:
    runs = [results.run(method="wanda"), results.run(method="magnitude", perplexity=50.0)]
    found = results.collect(runs)
    assert difference_tables(found.results, found.windows) == []
    assert difference_tables(results.collect([results.run()]).results, None) == []


def test_models_are_ordered_by_quantisation_without_moving_values(results: ResultsFolder) -> None:
    frame = results.collect([results.run(perplexity=9.0, seed=seed) for seed in range(3)]).results
    kinds = frame["seed"].map({0: "int4", 1: "none", 2: "int8"})
    varied = with_variants(frame.assign(quantization=kinds))
    names = ["doc-llama", "doc-llama int8", "doc-llama int4"]
    assert list(dict.fromkeys(varied["model"])) == names
    assert varied["value"].sort_index().equals(frame["value"])  # the index still names the row
