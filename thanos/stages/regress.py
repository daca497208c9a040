"""Compare the regression suite's results with the golden values; status 1 if anything moved.

    python -m thanos.stages.regress results/suites/regression/runs.json --golden golden.json \\
        --markdown regression.md --junit regression.xml

Where the lock file, a library, a corpus or the model changed, golden values are not comparable:
that is said, with status 2, and only what holds within one run is judged.
"""

import sys
from pathlib import Path

from ..artifacts import write_text
from ..command import parser, run_command
from ..regression.compare import RED, compare
from ..regression.golden import read_golden
from ..regression.measured import measure
from ..regression.render import to_junit, to_markdown, to_table

INCOMPARABLE = 2


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("runs", type=Path, help="the suite's list of runs")
    arguments.add_argument("--golden", type=Path, required=True)
    arguments.add_argument("--markdown", type=Path, required=True)
    arguments.add_argument("--junit", type=Path, required=True)
    given = arguments.parse_args()
    golden = read_golden(given.golden)
    checks, changes = compare(golden, measure(given.runs))
    red = sum(check.verdict in RED for check in checks)
    summary = f"{len(checks)} checks, {red} failed ({given.golden})"
    if changes:
        summary += (
            "\ngolden values are not comparable, because this changed since they were accepted:\n  "
            + "\n  ".join(changes)
            + "\nlook at the new values, then run `snakemake accept`"
        )
    elif red:
        summary += "\nif the change is meant, `snakemake accept` makes these the golden values"
    write_text(given.markdown, to_markdown(checks, changes, summary.splitlines()[0]))
    write_text(given.junit, to_junit(checks, changes))
    sys.stdout.write(f"{to_table(checks, 'simple')}\n\n{summary}\n")
    if red or changes:
        sys.exit(1 if red else INCOMPARABLE)


if __name__ == "__main__":
    run_command(main)
