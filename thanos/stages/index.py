"""Write the page of all suites, results/index.html: how each stands, headline numbers, links.

    python -m thanos.stages.index results

How a suite stands is told from records: what was made by other code or libraries than there are now
is stale. Nothing is hashed anew; `snakemake verify` does that. The workflow ends with this command.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import layout
from ..artifacts import read_json, write_checked_text
from ..command import parser, run_command
from ..errors import UserError
from ..reporting.overview import SuiteEntry, overview, suite_entry
from ..workflow.commands import of_suite
from ..workflow.standing import standing


def entries(results: Path) -> Iterator[SuiteEntry]:
    """An entry for each folder of a suite, by name."""
    for suite in sorted((results / layout.SUITES).glob("[!.]*/")):
        listed: dict[str, Any] = {}
        found = standing(suite)
        with suppress(UserError):  # its standing tells
            listed = read_json(suite / layout.RUNS, sealed=True)
        commands = of_suite(suite.name, listed, results)
        title = str(listed.get("title", suite.name))
        yield suite_entry(suite, title, found.state, found.reason, commands)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("results", type=Path)
    results = arguments.parse_args().results
    if not results.is_dir():
        raise UserError(f"{results} is no folder of results")
    write_checked_text(results / layout.INDEX, overview(list(entries(results))))


if __name__ == "__main__":
    run_command(main)
