"""Log a finished suite to Weights & Biases: one W&B run per result, one for the suite.

    python -m thanos.stages.track --suite <folder> --output tracking.json --directory <folder> \\
        [--mode offline] [--project thanos]

Offline by default: `wandb sync <directory>/wandb/offline-run-*` uploads later. A failure of W&B is
a warning and never fails a suite.
"""

from pathlib import Path

from ..artifacts import verify_manifest, verify_text, write_json
from ..command import parser, run_command
from ..layout import RUNS
from ..reporting.run_files import read_listing
from ..tracking import MODES, log_run, log_suite, run_id


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--suite", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--directory", type=Path, required=True)
    arguments.add_argument("--mode", choices=MODES, default="offline")
    arguments.add_argument("--project", default="thanos")
    given = arguments.parse_args()
    options = {"mode": given.mode, "project": given.project, "directory": given.directory}
    verify_text(given.suite / "results.csv")
    for made in ("tables", "figures"):
        verify_manifest(given.suite / made, maker=f"rule {made}")
    ids = {}
    for run in read_listing(given.suite / RUNS).read():
        log_run(run, group=given.suite.name, **options)
        ids[run.name] = run_id(run.name)
    log_suite(given.suite, **options)
    write_json(given.output, {"mode": given.mode, "project": given.project, "runs": ids})


if __name__ == "__main__":
    run_command(main)
