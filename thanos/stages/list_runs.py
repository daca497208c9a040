"""List the runs of a suite, what they are called and where their results lie, for what follows.

python -m thanos.stages.list_runs <suite> [--quick | --real] [--overrides key=value …] \\
        [--config-dir <folder> …] --output runs.json
"""

from pathlib import Path

from ..artifacts import write_json
from ..command import parser, run_command
from ..workflow.catalog import listing
from ..workflow.suite_files import add_sizes
from ..workflow.suites import load_suite


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("suite")
    add_sizes(arguments)
    arguments.add_argument("--overrides", nargs="*", default=[], metavar="key=value")
    arguments.add_argument("--config-dir", nargs="*", default=[], metavar="folder")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    write_json(
        given.output,
        listing(load_suite(given.suite, given.overrides, given.size, tuple(given.config_dir))),
    )


if __name__ == "__main__":
    run_command(main)
