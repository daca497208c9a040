"""Write a suite's report: one self-contained HTML file, with its tables, figures and runs.

    python -m thanos.stages.report --suite <folder> --origin origin.json \\
        --published published.csv --accuracies accuracies.csv --output report.html
"""

from pathlib import Path

from .. import layout
from ..artifacts import read_json, write_checked_text
from ..command import parser, run_command
from ..reporting.published import read_published
from ..reporting.run_files import read_listing
from ..reporting.suite_report import Commands, suite_report
from ..reporting.suite_tables import read_collected, suite_tables
from ..workflow.commands import by_hand, by_workflow, of_suite


def commands_of(suite: Path) -> Commands:
    """The commands that make a suite and each of its runs again, as it was listed."""
    listed, results = read_json(suite / layout.RUNS, sealed=True), suite.parent.parent
    evaluations = results / layout.EVALUATIONS
    runs = {}
    for run in listed["runs"]:
        target = str(evaluations / run[layout.EVALUATIONS] / layout.EVALUATION)
        runs[run["run"]] = {
            "workflow": by_workflow(target, suite.name, listed, results),
            "by_hand": by_hand(run, listed),
        }
    return Commands(of_suite(suite.name, listed, results), runs)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--suite", type=Path, required=True)
    arguments.add_argument("--origin", type=Path, required=True, help="what made the results")
    arguments.add_argument("--published", type=Path, help="published values to compare with")
    arguments.add_argument("--accuracies", type=Path, help="published accuracies")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    suite = given.suite
    data = read_collected(*(suite / f"{name}.csv" for name in ("results", "layers", "windows")))
    published = read_published(given.published, given.accuracies) if given.published else None
    listing = read_listing(suite / layout.RUNS)
    tables = suite_tables(listing, data, published)
    origin = read_json(given.origin, sealed=True)["origin"]
    text = suite_report(suite, listing, data.results, tables, origin, commands_of(suite))
    write_checked_text(given.output, text)


if __name__ == "__main__":
    run_command(main)
