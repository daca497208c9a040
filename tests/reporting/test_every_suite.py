"""The project's own suites, of whatever size: no table cell of theirs mixes what differs."""

import pytest
from results_folder import ResultsFolder

from thanos.reporting.run_files import Listing
from thanos.reporting.suite_tables import suite_tables
from thanos.stages.plot import _figures
from thanos.workflow.suite_files import suite_files
from thanos.workflow.suites import load_suite

MOST_RUNS = 150  # of a suite that is tried whole


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size)
        for name in sorted(suite_files())
        for size in ("", "quick", "real")
        if size != "real" or name.startswith("ablation-")
    ],
)
def test_tables_and_figures_can_be_made(name: str, size: str, results: ResultsFolder) -> None:
    suite = load_suite(name, size=size)
    if len(suite.runs) > MOST_RUNS:
        pytest.skip("large; its quick size is of the same blocks")
    for place, run in enumerate(suite.runs):
        acc = 50.0 if run.evaluation.tasks else None
        divergence = 0.1 if run.evaluation.divergence else None
        latency = None if run.latency is None else {}
        results.finish(run, 20 + place / 10, acc=acc, divergence=divergence, latency=latency)
    data = results.collect(suite.runs)
    listing = Listing(results.folder, suite.title, list(suite.axes), [])
    assert suite_tables(listing, data)
    assert list(_figures(data.results, data.layers, list(suite.axes)))
