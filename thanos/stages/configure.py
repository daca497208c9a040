"""Write a run's resolved configuration beside its results, from overrides or already resolved.

python -m thanos.stages.configure --output config.yaml model=doc-opt method=wanda pattern=2:4
"""

from pathlib import Path

from ..artifacts import write_checked_text
from ..config import dumps, loads, resolve
from .command import parser, run_command


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--resolved", help="the whole configuration, as YAML or JSON")
    arguments.add_argument("overrides", nargs="*", metavar="key=value")
    given = arguments.parse_args()
    config = loads(given.resolved) if given.resolved else resolve(given.overrides)
    write_checked_text(given.output, dumps(config))


if __name__ == "__main__":
    run_command(main)
