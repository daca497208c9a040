"""Models that were trained after they were pruned stand beside those that were not."""

import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.reporting.layers import layer_tables
from thanos.reporting.suite_tables import comparison_tables


@pytest.fixture
def runs(results: ResultsFolder) -> list[Run]:
    found = []
    for recovery, gain in (("none", 0.0), ("full", 2.0)):
        for seed in range(3):
            dense = results.run(
                pattern="dense",
                method="dense",
                perplexity=20.0 - gain,
                seed=seed,
                recovery=recovery,
            )
            found.append(dense)
            for method, value in (("wanda", 30.0), ("thanos", 25.0 + seed)):
                value -= 2 * gain
                found.append(
                    results.run(method=method, perplexity=value, seed=seed, recovery=recovery)
                )
    return found


def rows(table) -> dict[str, list[str]]:
    return {row.labels[0]: [cell.text for cell in row.cells] for row in table.rows()}


def test_training_is_a_column_of_its_own(results: ResultsFolder, runs: list[Run]) -> None:
    data = results.collect(runs)
    main, *others = comparison_tables(data.results, data.windows)
    assert [column.name for column in main.columns] == ["doc-llama", "doc-llama recovered (full)"]
    assert rows(main) == {
        "Dense": ["20.00", "18.00"],
        "Wanda": ["30.00", "26.00"],
        "Thanos": ["26.00", "22.00"],
    }
    share = next(table for table in others if table.name.startswith("recovery"))
    assert rows(share)["Thanos"] == ["1.30", "1.10"]  # of the dense model as it is stored


def test_what_was_measured_of_the_training_is_in_the_frame(
    results: ResultsFolder, runs: list[Run]
) -> None:
    frame = results.collect(runs).results
    zeros = frame[frame["metric"] == "recovery.zeros"]
    assert set(zeros["recovery"]) == {"full"}
    assert len(zeros) == len(runs) // 2
    assert set(zeros["value"]) == {50.0}


def test_layers_are_those_of_the_pruning(results: ResultsFolder, runs: list[Run]) -> None:
    (table,) = layer_tables(results.collect(runs).layers)
    assert table.name == "layers-doc-llama"
    made_of = {run for row in table.rows() for cell in row.cells for run in cell.made_of()}
    assert made_of == {run.name for run in runs if run.pruning and not run.recovery}
