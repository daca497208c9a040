"""Show the main table of finished suites on the terminal, and where everything lies.

python -m thanos.stages.show results/suites/demo
"""

import sys
from pathlib import Path

from ..command import parser, run_command
from ..errors import UserError


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("suites", type=Path, nargs="+")
    for suite in arguments.parse_args().suites:
        tables = sorted((suite / "tables").glob("main*.txt"))
        if not tables:
            raise UserError(f"{suite} has no tables yet; run `snakemake {suite.name}`")
        for table in tables:
            sys.stdout.write(table.read_text(encoding="utf-8") + "\n")
        sys.stdout.write(f"tables   {suite / 'tables'} (md, csv, tex, html, txt)\n")
        sys.stdout.write(f"figures  {suite / 'figures'} (svg, png, pdf)\n")
        for kind, name in (("results", "results.csv"), ("report", "report.html")):
            if (suite / name).is_file():
                sys.stdout.write(f"{kind:8} {suite / name}\n")


if __name__ == "__main__":
    run_command(main)
