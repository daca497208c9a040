"""Fetch into one folder all that a suite's runs need from the hub, for machines without network.

    python -m thanos.stages.mirror --wanted '<JSON>' --record <mirror>/<suite>.json

`snakemake mirror --config suite=<name> mirror=<folder>` calls this with what the suite names. The
folder then takes the hub's place (`mirror=<folder>`): it holds `models/<hub id>/<revision>/`, the
corpora as `thanos.data.sources` reads them, and `zeroshot/<task>.jsonl`. A command that was cut
short fetches only what is not there yet.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..artifacts import sha256, write_json
from ..config import PROJECT, Config
from ..data.sources import CALIBRATION, EVALUATION, fetch_split
from ..models.location import fetch_model, is_hub_id, mirrored_folder
from .command import parser, run_command

logger = logging.getLogger(__name__)


def wanted(configs: Iterable[Config]) -> dict[str, list[Any]]:
    """What the runs read from the hub: models, splits of corpora and zero-shot tasks, sorted."""
    from ..evaluation.benchmarks import DEFINITIONS

    models, calibration, evaluation, tasks = set(), set(), set(), set()
    for config in configs:
        model = config.model
        if not (PROJECT / model.path).is_dir() and is_hub_id(model.path):
            models.add((model.path, model.revision or "main", model.trust_remote_code))
        if config.calibration.source in CALIBRATION and config.calibration.path is None:
            calibration.add(config.calibration.source)
        evaluation.update(set(config.evaluation.corpora) & EVALUATION.keys())
        tasks.update(set(config.evaluation.tasks) & DEFINITIONS.keys())
    return {
        "models": [list(model) for model in sorted(models)],
        "calibration": sorted(calibration),
        "evaluation": sorted(evaluation),
        "tasks": sorted(tasks),
    }


def fetch(content: dict[str, list[Any]], mirror: Path) -> dict[str, Any]:
    """Fetch what `wanted` named; return revision and hash of everything, for the record.

    Raises:
        UserError: something is not to be had; what was fetched before stays.
    """
    models, files = {}, {}
    for name, revision, code in content["models"]:
        folder = mirrored_folder(mirror, name, revision)
        logger.info("model %s (revision %s) -> %s", name, revision, folder)
        models[f"{name}@{revision}"] = fetch_model(name, revision, folder, trust_remote_code=code)
    splits = [CALIBRATION[source] for source in content["calibration"]]
    splits += [EVALUATION[source] for source in content["evaluation"]]
    for split in splits:
        logger.info("corpus %s of %s", split.filename, split.repository)
        file = fetch_split(split, mirror)
        files[file.relative_to(mirror).as_posix()] = {
            "revision": split.revision,
            "sha256": sha256(file),
        }
    for task in content["tasks"]:
        from ..evaluation.hub_rows import fetch_task

        logger.info("zero-shot task %s", task)
        file, revision = fetch_task(task, mirror)
        files[file.relative_to(mirror).as_posix()] = {"revision": revision, "sha256": sha256(file)}
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
