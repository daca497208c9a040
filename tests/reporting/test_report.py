"""The report of a suite as a reader has it: whole without network and script, every link good."""

import pytest
from pages import HOSTILE, Page
from results_folder import ResultsFolder

from thanos import layout
from thanos.artifacts import read_json, write_json
from thanos.config import Run
from thanos.reporting.collecting import collect
from thanos.reporting.conditions import Conditions
from thanos.reporting.run_files import read_listing
from thanos.reporting.suite_report import suite_report
from thanos.reporting.suite_tables import suite_tables
from thanos.stages.plot import draw
from thanos.stages.report import commands_of
from thanos.stages.tabulate import RENDERERS


def report_of(
    results: ResultsFolder, runs: list[Run], axes: tuple[str, ...] = (), title: str | None = None
) -> Page:
    """The page of a suite of these runs, written where the workflow would."""
    listed = results.write_list(runs, axes)
    if title is not None:
        write_json(listed, {**read_json(listed), "title": title})
    suite, listing, conditions = listed.parent, read_listing(listed), Conditions()
    data = collect(map(conditions.add, listing.read()))
    tables = suite_tables(listing, data)
    (suite / "tables").mkdir()
    (suite / "figures").mkdir()
    for table in tables:
        for suffix, render in RENDERERS.items():
            (suite / "tables" / f"{table.name}.{suffix}").write_text(render(table))
    draw(data.results, data.layers, listing.axes, suite / "figures")
    (results.folder / "index.html").touch()  # of the suites, made after their reports
    arguments = (suite, listing, data.results, tables, conditions.origin(), commands_of(suite))
    text = suite_report(*arguments)
    assert text == suite_report(*arguments)  # a function of what it shows
    (suite / "report.html").write_text(text)
    page = Page(text)
    assert page.broken(suite / "report.html") == []
    assert len(set(page.ids)) == len(page.ids)
    return page


def test_the_main_table_and_its_figure_come_first(
    demo_runs: list[Run], results: ResultsFolder
) -> None:
    runs = [run for run in demo_runs if run.columns["model"] == "doc-llama"]
    runs = [run for run in runs if run.columns["pattern"] in ("dense", "2:4")]
    page = report_of(results, runs, title="A & B")
    assert page.text.startswith("<!doctype html>")
    assert "<h1>A &amp; B</h1>" in page.text
    places = [page.text.index(f'id="{name}"') for name in ("table-1", "figure-1", "table-2")]
    assert places == sorted(places)
    assert places[-1] < page.text.index('id="runs"') < page.text.index('id="made"')
    assert 'It draws\n<a href="#table-1">Main table</a>' in page.text
    assert "5eed" in page.shown
    assert page.elements["table"] >= 5
    assert not {"link", "iframe", "base"} & page.elements.keys()
    assert "http" not in page.text
    assert page.elements["img"] == page.text.count('src="data:image/svg+xml;base64,') > 2


def test_every_number_leads_to_its_runs_and_they_to_their_files(
    results: ResultsFolder,
) -> None:
    runs = [
        results.run(
            pattern=pattern, method=method, perplexity=value + seed / 10, seed=seed, layers=[]
        )
        for pattern, method, value in (
            *(("dense", "dense", 9.0), ("2:4", "wanda", 11.0), ("2:4", "thanos", 10.0)),
        )
        for seed in ((0,) if method == "dense" else (0, 1, 2))
    ]
    page = report_of(results, runs)
    rows = [name for name in page.ids if name.startswith("run-")]
    assert len(rows) == len(runs)
    # Without a script too: the rows are in the page, and a link leads to the first of a mean.
    assert {name for names in page.numbers for name in names} == set(rows)
    assert sorted({len(names) for names in page.numbers} - {1, 6}) == [3]  # 6: of a difference
    for run in runs:
        for kind in (layout.EVALUATIONS, *([layout.PRUNED] if run.pruning else [])):
            assert f"../../{kind}/{results.file(run, kind).parent.name}/" in page.text
        assert run.name in page.shown
    commands = [text for text in page.shown if text.startswith("python -m thanos ")]
    assert len(commands) == len(runs)
    assert sum(text.startswith("snakemake ") for text in page.shown) == len(runs) + 2


@pytest.mark.parametrize("axes", [("method.block_size",), ("seed", "method.block_size")])
def test_an_ablation_has_its_figures_at_its_tables(
    results: ResultsFolder, axes: tuple[str, ...]
) -> None:
    runs = [
        results.run(pattern=pattern, perplexity=value, block_size=size, layers=[])
        for pattern, value in (("2:4", 11.0), ("0.5", 10.0))
        for size in (64, 128)
    ]
    page = report_of(results, runs, axes)
    assert "B" in page.shown  # they differ in the block size, and the list of runs says so
    assert "windows" not in page.shown
    assert page.elements["figure"] == (2 if len(axes) == 1 else 0)
    assert "Drawn in" in page.text or len(axes) > 1


def test_names_are_text(results: ResultsFolder) -> None:
    run = results.run(pattern="0.5", path="testbed/doc-llama", layers=[])
    listed = results.write_list([run])
    content = read_json(listed)
    content["runs"][0]["run"] += HOSTILE
    content["runs"][0]["overrides"] = [f"model={HOSTILE}"]
    content["runs"][0]["columns"]["model_path"] = HOSTILE
    content["runs"][0]["columns"]["calibration"] = HOSTILE
    results.write_list = lambda runs, axes=(): (write_json(listed, content), listed)[1]  # type: ignore[method-assign]
    page = report_of(results, [run], title=HOSTILE)
    assert page.elements["script"] == 1  # ours
    assert not any(name.startswith("on") for name in page.attributes)
    assert HOSTILE in page.shown  # in full, unfilled
    assert "42" not in "".join(page.shown).split(HOSTILE)[0]
