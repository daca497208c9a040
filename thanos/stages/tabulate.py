"""Make the tables of a suite: Markdown, CSV, LaTeX, HTML for the report, and text for terminals.

python -m thanos.stages.tabulate results.csv --output tables [--axes method.block_size]
"""

import dataclasses
import time
from pathlib import Path

from ..artifacts import atomic_folder, verify_text, write_manifest
from ..provenance import circumstances
from ..reporting.ablations import ablation_table
from ..reporting.frame import from_csv
from ..reporting.grid import Table
from ..reporting.html import to_html
from ..reporting.measures import main_measures
from ..reporting.published import read_published
from ..reporting.render import to_csv, to_latex, to_markdown, to_terminal
from ..reporting.tables import main_tables
from .command import parser, run_command

RENDERERS = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
    "txt": to_terminal,
}


def make_tables(results: Path, axes: list[str], title: str, published: Path | None) -> list[Table]:
    """The tables of a suite: over its axes for an ablation, otherwise methods by pattern."""
    frame = from_csv(results.read_text(encoding="utf-8"))
    if axes:
        tables = [
            ablation_table(frame, axes, measure, name=f"{measure.metric}-{measure.dataset}")
            for measure in main_measures(frame)
        ]
    else:
        tables = main_tables(frame, read_published(published) if published else None)
    return [dataclasses.replace(table, title=title or table.title) for table in tables]


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--axes", nargs="*", default=[], help="keys that an ablation sweeps")
    arguments.add_argument("--title", default="")
    arguments.add_argument("--published", type=Path, help="published values to compare with")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    verify_text(given.results)
    tables = make_tables(given.results, given.axes, given.title, given.published)
    with atomic_folder(given.output) as folder:
        for table in tables:
            for suffix, render in RENDERERS.items():
                (folder / f"{table.name}.{suffix}").write_text(render(table), encoding="utf-8")
        write_manifest(folder, {"provenance": circumstances(started)})


if __name__ == "__main__":
    run_command(main)
