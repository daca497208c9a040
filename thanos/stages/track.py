"""Log a finished suite to Weights & Biases: one W&B run per result, one for the suite.

    python -m thanos.stages.track --suite <folder> --output tracking.json --directory <folder> \\
        [--mode offline] <run folder> ...

Offline by default: `wandb sync <directory>/wandb/offline-run-*` uploads later. A failure of W&B is
a warning and never fails a suite.
"""

from pathlib import Path

from ..artifacts import verify_manifest, verify_text, write_json
from ..tracking import MODES, log_run, log_suite, run_id
from .command import parser, run_command


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--suite", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--directory", type=Path, required=True)
    arguments.add_argument("--mode", choices=MODES, default="offline")
    arguments.add_argument("--project", default="thanos")
    arguments.add_argument("runs", type=Path, nargs="+")
    given = arguments.parse_args()
    options = {"mode": given.mode, "project": given.project, "directory": given.directory}
    verify_text(given.suite / "results.csv")
    for made in ("tables", "figures"):
        verify_manifest(given.suite / made, maker=f"rule {made}")
    for folder in given.runs:
        log_run(folder, group=given.suite.name, **options)
    log_suite(given.suite, **options)
    ids = {str(folder): run_id(folder) for folder in given.runs}
    write_json(given.output, {"mode": given.mode, "project": given.project, "runs": ids})


if __name__ == "__main__":
    run_command(main)
