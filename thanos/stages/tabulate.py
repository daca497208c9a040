"""Make the tables of a suite: Markdown, CSV, LaTeX, HTML for the report, and text for terminals.

    python -m thanos.stages.tabulate results.csv --runs runs.json --layers layers.csv \\
        --windows windows.csv --output tables
"""

import time
from pathlib import Path

from ..artifacts import atomic_folder, write_manifest
from ..command import parser, run_command
from ..identity.fingerprints import stage_fingerprint
from ..provenance import provenance
from ..reporting.html import to_html
from ..reporting.latex import to_latex
from ..reporting.published import read_published
from ..reporting.render import to_csv, to_markdown, to_terminal
from ..reporting.run_files import read_listing
from ..reporting.suite_tables import read_collected, suite_tables

RENDERERS = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
    "txt": to_terminal,
}


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--layers", type=Path, required=True)
    arguments.add_argument("--windows", type=Path, required=True)
    arguments.add_argument("--runs", type=Path, required=True, help="the suite's list of runs")
    arguments.add_argument("--published", type=Path, help="published perplexities")
    arguments.add_argument("--accuracies", type=Path, help="published accuracies")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started, found = time.time(), stage_fingerprint("tabulate")
    data = read_collected(given.results, given.layers, given.windows)
    published = read_published(given.published, given.accuracies) if given.published else None
    tables = suite_tables(read_listing(given.runs), data, published)
    with atomic_folder(given.output) as folder:
        for table in tables:
            for suffix, render in RENDERERS.items():
                (folder / f"{table.name}.{suffix}").write_text(render(table), encoding="utf-8")
        write_manifest(folder, {"provenance": provenance(started, found)})


if __name__ == "__main__":
    run_command(main)
