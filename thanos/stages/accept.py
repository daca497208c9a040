"""Make the regression suite's results the golden values, and show what that changes.

python -m thanos.stages.accept runs.json --golden golden.json [--template other.json]

Orderings and tolerances stay as they are; a new file takes them from the template.
"""

import sys
from pathlib import Path

from ..command import parser, run_command
from ..regression.compare import NEW, compare
from ..regression.golden import accepted, read_golden, write_golden
from ..regression.measured import measure
from ..regression.render import to_table


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("runs", type=Path, help="the suite's list of runs")
    arguments.add_argument("--golden", type=Path, required=True)
    arguments.add_argument("--template", type=Path)
    given = arguments.parse_args()
    exists = given.golden.exists() or given.template is None
    old = read_golden(given.golden if exists else given.template)
    measured = measure(given.runs)
    if exists:
        checks, changes = compare(old, measured)
        for line in changes:
            sys.stdout.write(f"{line}\n")
        differing = [
            c for c in checks if c.old != c.new and (c.old is not None or c.verdict == NEW)
        ]
        sys.stdout.write(
            f"{to_table(differing, 'simple')}\n" if differing else "no value differs\n"
        )
    write_golden(given.golden, accepted(old, measured))
    sys.stdout.write(f"written: {given.golden}\n")


if __name__ == "__main__":
    run_command(main)
