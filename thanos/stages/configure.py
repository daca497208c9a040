"""Resolve a run's overrides and write its configuration beside its results.

python -m thanos.stages.configure --output config.yaml model=doc-opt method=wanda pattern=2:4
"""

from pathlib import Path

from ..artifacts import write_text
from ..config import dump, resolve
from .command import parser, run_command


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("overrides", nargs="*")
    given = arguments.parse_args()
    write_text(given.output, dump(resolve(given.overrides)))


if __name__ == "__main__":
    run_command(main)
