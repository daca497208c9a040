"""Write a suite's report: one self-contained HTML file, with its tables and figures.

python -m thanos.stages.report --suite <folder> --origin origin.json --output report.html
"""

from pathlib import Path

from ..artifacts import read_json, verify_text, write_checked_text
from ..command import parser, run_command
from ..layout import RUNS
from ..reporting.frame import from_csv
from ..reporting.run_files import read_listing
from ..reporting.suite_report import suite_report


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--suite", type=Path, required=True)
    arguments.add_argument("--origin", type=Path, required=True, help="what made the results")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    results = given.suite / "results.csv"
    verify_text(results)
    frame = from_csv(results.read_text(encoding="utf-8"))
    title = read_listing(given.suite / RUNS).title
    origin = read_json(given.origin, sealed=True)["origin"]
    write_checked_text(given.output, suite_report(given.suite, title, frame, origin))


if __name__ == "__main__":
    run_command(main)
