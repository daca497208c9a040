"""The page of all suites: how each stands by its records, headline numbers, links that are good."""

import subprocess
import sys
from pathlib import Path

import pytest
from pages import HOSTILE, Page
from results_folder import MADE, ResultsFolder

from thanos import layout
from thanos.artifacts import read_json, write_checked_text, write_json, write_manifest
from thanos.identity.fingerprints import stage_fingerprint
from thanos.paths import SOURCE
from thanos.reporting.collecting import collect
from thanos.reporting.conditions import Conditions
from thanos.reporting.frame import to_csv
from thanos.reporting.overview import overview
from thanos.reporting.run_files import read_listing
from thanos.stages.index import entries
from thanos.workflow.commands import of_suite


def today(stage: str) -> dict:
    """Provenance of something that this source has made."""
    found = stage_fingerprint(stage)
    return {"fingerprint": {"code": found.code, "libraries": {**found.libraries}, "inputs": {}}}


@pytest.fixture
def suite(results: ResultsFolder) -> Path:
    """A finished suite, made by this source."""
    made = today("prune")
    runs = [
        results.run(pattern="dense", method="dense", perplexity=9.0, acc=60.0, made=made),
        results.run(method="thanos", perplexity=10.0, acc=50.0, made=made),
        results.run(method="wanda", perplexity=11.0, acc=55.0, made=made),
    ]
    listed, conditions = results.write_list(runs), Conditions()
    suite = listed.parent
    frame = collect(map(conditions.add, read_listing(listed).read())).results
    write_checked_text(suite / "results.csv", to_csv(frame))
    record = {"origin": conditions.origin(), "results_of": conditions.results_of()}
    write_json(suite / "origin.json", {**record, "provenance": today("collect")})
    for folder, stage in (("tables", "tabulate"), ("figures", "plot")):
        (suite / folder).mkdir()
        write_manifest(suite / folder, {"provenance": today(stage)})
    (suite / "report.html").touch()
    return suite


def test_a_finished_suite_is_current_and_shows_its_best(suite: Path) -> None:
    results = suite.parent.parent
    (entry,) = entries(results)
    assert (entry.name, entry.title, entry.state, entry.reason) == ("mine", "Mine", "current", "")
    assert entry.headlines == [
        ["docs perplexity ↓", "doc-llama", "9.00", "10.00 (Thanos, 2:4)", "11.00 (Wanda, 2:4)"],
        [
            *("zero-shot mean accuracy (%) ↑", "doc-llama", "60.00"),
            *("55.00 (Wanda, 2:4)", "50.00 (Thanos, 2:4)"),
        ],
    ]
    assert MADE["source"]["revision"] in entry.facts
    page = Page(overview([entry]))
    assert page.broken(results / "index.html") == []
    assert entry.commands == of_suite("mine", {}, results)
    assert f"snakemake verify --config suite=mine results={results}" in page.shown
    assert page.elements["script"] == 0


def edit(file: Path, **values: object) -> None:
    write_json(file, {**read_json(file), **values})


def spoil_code(suite: Path) -> None:
    origin = read_json(suite / "origin.json")
    origin["results_of"]["code"]["thanos.pruning.updates"] = "0" * 12
    write_json(suite / "origin.json", origin)


def spoil_library(suite: Path) -> None:
    made = today("plot")
    made["fingerprint"]["libraries"]["matplotlib"] = "1.0"
    write_manifest(suite / "figures", {"provenance": made})


def lose_result(suite: Path) -> None:
    lost = read_json(suite / layout.RUNS)["runs"][1]
    (suite.parent.parent / layout.PRUNED / lost[layout.PRUNED] / layout.RECORD).unlink()


def damage_list(suite: Path) -> None:
    (suite / layout.RUNS).write_text("{")


def damage_results(suite: Path) -> None:
    (suite / "results.csv").write_text("run\n")


def lose_manifest_of_origin(suite: Path) -> None:
    edit(suite / "origin.json", provenance={})


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (spoil_code, "stale", "made before a change of thanos.pruning.updates"),
        (spoil_library, "stale", "made before a change of matplotlib"),
        (lose_result, "incomplete", "1 of 3 runs have no results"),
        (lambda suite: (suite / "report.html").unlink(), "incomplete", "report.html is not there"),
        (lambda suite: (suite / layout.RUNS).unlink(), "incomplete", "its runs are not listed"),
        (damage_list, "damaged", "runs.json is damaged"),
        (damage_results, "damaged", "results.csv is damaged"),
        (lose_manifest_of_origin, "damaged", "a record lacks 'fingerprint'"),
    ],
)
def test_how_it_stands(suite: Path, change, state: str, reason: str) -> None:
    change(suite)
    (entry,) = entries(suite.parent.parent)
    assert (entry.state, reason in entry.reason) == (state, True), entry.reason
    page = Page(overview([entry]))
    assert page.broken(suite.parent.parent / "index.html") == []


def test_names_are_text_and_the_command_writes_the_page(suite: Path) -> None:
    edit(suite / layout.RUNS, title=HOSTILE)
    results = suite.parent.parent
    command = [sys.executable, "-m", "thanos.stages.index", str(results)]
    subprocess.run(command, check=True, cwd=SOURCE)
    text = (results / "index.html").read_text()
    page = Page(text)
    assert page.elements["script"] == 0
    assert HOSTILE in page.shown
    assert text == overview(list(entries(results)))


def test_without_suites_it_says_so(tmp_path: Path) -> None:
    assert "No suite has been run here yet." in overview(list(entries(tmp_path)))
