"""Write a suite's report: one self-contained HTML file, with its tables and figures.

python -m thanos.stages.report --suite <folder> --title … --output report.html <run folder> ...
"""

from pathlib import Path

from ..artifacts import verify_text, write_checked_text
from ..reporting.frame import from_csv
from ..reporting.suite_report import suite_report
from .command import parser, run_command


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--suite", type=Path, required=True)
    arguments.add_argument("--title", required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("runs", type=Path, nargs="+")
    given = arguments.parse_args()
    results = given.suite / "results.csv"
    verify_text(results)
    frame = from_csv(results.read_text(encoding="utf-8"))
    write_checked_text(given.output, suite_report(given.suite, given.title, frame, given.runs))


if __name__ == "__main__":
    run_command(main)
