"""A suite of several calibrations: each is compared by itself, with the dense model beside it."""

from pathlib import Path

import pandas as pd
import pytest
from results_folder import ResultsFolder

from thanos.artifacts import read_json
from thanos.config import Run
from thanos.reporting.calibrations import calibrations_apart
from thanos.reporting.run_files import Listing
from thanos.reporting.suite_tables import suite_tables
from thanos.stages.plot import draw

PLUS = {"order": "sublayer", "correction": 0.75}


def runs_on(results: ResultsFolder, **calibration: object) -> list[Run]:
    """Thanos, and with options, on one calibration; the more windows the better."""
    gain = float(str(calibration.get("windows", 64))) / 1000
    return [
        results.run("a", method="thanos", perplexity=30 - gain, **calibration),
        results.run("a", method="thanos", perplexity=25 - gain, options=dict(PLUS), **calibration),
    ]


def test_sizes_are_columns_with_the_dense_model_in_each(results: ResultsFolder) -> None:
    runs = [results.run("a", "dense", "dense", 20.0), results.run("b", perplexity=12.0)]
    for windows in (128, 24):
        runs += runs_on(results, windows=windows)
    listing = Listing(Path("runs.json"), "T", [], [])
    tables = {table.name: table for table in suite_tables(listing, results.collect(runs))}
    main = tables["main"]
    # By size, not by the digits; a model of one calibration keeps its name.
    models = ["a on 24 windows", "a on 128 windows", "b"]
    assert [column.name for column in main.columns] == models
    values = [[cell.value for cell in row.cells] for row in main.rows()]
    assert values[0] == [20.0, 20.0, None]
    assert values[1] == pytest.approx([29.976, 29.872, 12.0])
    assert values[2][:2] == pytest.approx([24.976, 24.872])
    (gap,) = tables["gap-docs"].rows()
    assert [round(cell.value or 0, 1) for cell in gap.cells] == [45.1, 45.7]
    named = {"layers-a-on-24-windows", "layers-a-on-128-windows", "layers-b"}
    assert named == {name for name in tables if name.startswith("layers")}


def test_figures_have_a_panel_for_each(results: ResultsFolder, tmp_path: Path) -> None:
    runs = [results.run("a", "dense", "dense", 20.0)]
    for windows in (24, 128):
        runs += runs_on(results, windows=windows)
    found = results.collect(runs)
    draw(found.results, found.layers, [], tmp_path)
    captions = read_json(tmp_path / "captions.json")
    assert {"gap-docs", "layers-a-on-24-windows-2-4"} <= set(captions)
    assert captions["layers-a-on-24-windows-2-4"]["table"] == "layers-a-on-24-windows"
    assert "a on 128 windows, 2:4" in (tmp_path / "gap-docs.svg").read_text()


@pytest.mark.parametrize(
    ("several", "names"),
    [
        ([{"source": "docs"}, {"source": "code"}], {"a on code", "a on docs"}),
        (
            [{"source": "docs", "windows": 8}, {"source": "code", "windows": 4}],
            {"a on code 4 windows", "a on docs 8 windows"},
        ),
        ([{"windows": 8}], {"a"}),
    ],
)
def test_what_differs_is_said(
    several: list[dict[str, object]], names: set[str], results: ResultsFolder
) -> None:
    runs = [run for calibration in several for run in runs_on(results, **calibration)]
    found = results.collect(runs)
    for frame in (found.results, found.layers):
        apart = calibrations_apart(frame)
        assert set(apart["model"]) == names
        assert len(apart) == len(frame)


def test_a_dense_model_in_a_form_of_its_own_is_there_once(results: ResultsFolder) -> None:
    """Where no run of that form was calibrated, it would be in columns without anything else."""
    dense = results.run("a", "dense", "dense", 20.0)
    runs = [*runs_on(results, windows=24), *runs_on(results, windows=128), dense]
    frame = results.collect(runs).results
    rounded = frame[frame["method"] == "dense"].assign(quantization="int8")

    apart = calibrations_apart(pd.concat([frame, rounded]))
    assert set(apart.loc[apart["quantization"] == "int8", "model"]) == {"a"}
    assert set(apart.loc[apart["quantization"] == "none", "model"]) == {
        "a on 24 windows",
        "a on 128 windows",
    }

    both = pd.concat([frame, frame[frame["calibration_windows"] != 24].assign(quantization="int8")])
    apart = calibrations_apart(both)
    assert set(apart.loc[apart["quantization"] == "int8", "model"]) == {"a on 128 windows"}
