"""Collect the results of finished runs into one tidy table.

python -m thanos.stages.collect --output results.csv [--layers …] [--windows …] <run folder> ...
"""

from pathlib import Path

from ..artifacts import write_checked_text
from ..reporting.frame import collect, collect_layers, collect_windows, to_csv
from .command import parser, run_command


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--layers", type=Path, help="also write the records of all layers")
    arguments.add_argument("--windows", type=Path, help="also write the loss of every window")
    arguments.add_argument("runs", type=Path, nargs="+")
    given = arguments.parse_args()
    write_checked_text(given.output, to_csv(collect(given.runs)))
    if given.layers:
        write_checked_text(given.layers, to_csv(collect_layers(given.runs)))
    if given.windows:
        write_checked_text(given.windows, to_csv(collect_windows(given.runs)))


if __name__ == "__main__":
    run_command(main)
