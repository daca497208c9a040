"""Say of a suite's results whether they are current: hash them anew, compare with today's inputs.

    python -m thanos.stages.verify <suite> --results results [--quick | --real] \\
        [--overrides key=value …] [--config-dir <folder> …] [--remove-orphans]

Damaged: the content is not what was written. Missing: a result that the suite should have. Stale:
code, libraries or inputs have changed since. Orphaned: written by no finished job, or of no suite
that has been run here; listed, and removed if asked. The status is 1 if anything else was found,
unless orphans are removed.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path

from .. import layout
from ..command import parser, run_command
from ..workflow.suite_files import add_sizes, folder_of
from ..workflow.suites import load_suite
from ..workflow.verification import KINDS, Verification


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("suite")
    arguments.add_argument("--results", type=Path, required=True)
    add_sizes(arguments)
    arguments.add_argument("--overrides", nargs="*", default=[], metavar="key=value")
    arguments.add_argument("--config-dir", nargs="*", default=[], metavar="folder")
    arguments.add_argument("--remove-orphans", action="store_true", help="after listing them")
    given = arguments.parse_args()
    suite = load_suite(given.suite, given.overrides, given.size, tuple(given.config_dir))
    folder = given.results / layout.SUITES / folder_of(given.suite, given.size)
    verification = Verification(suite, given.results, folder)
    found = list(verification.findings())
    for finding in found:
        sys.stdout.write(f"{finding}\n")
    counts = Counter(finding.kind for finding in found)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    current = verification.current(found)
    sys.stdout.write(f"{folder}: {len(suite.runs)} runs verified, {summary}, {current} current\n")
    if given.remove_orphans:
        for finding in found:
            if finding.kind == "orphaned":
                path = finding.path
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        sys.stdout.write(f"removed: {counts['orphaned']} orphaned\n")
    elif len(found) > counts["orphaned"]:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
