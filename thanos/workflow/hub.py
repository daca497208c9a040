"""What a suite reads from the hub."""

from collections.abc import Iterable
from typing import Any

from ..config import Run
from ..data.sources import CALIBRATION, EVALUATION
from ..testbed.continuations import TESTBED_TASK


def wanted(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """Models, splits of corpora and zero-shot tasks of some runs, sorted."""
    models, calibration, evaluation, tasks = set(), set(), set(), set()
    for run in runs:
        model, pruning = run.evaluation.base, run.pruning
        if model.on_hub:
            models.add((model.path, model.revision or "main", model.trust_remote_code))
        if pruning and pruning.calibration:
            text = pruning.calibration.text
            if text.source in CALIBRATION and text.path is None:
                calibration.add(text.source)
        evaluation |= {cut.readable for cut in run.evaluation.windows} & EVALUATION.keys()
        tasks |= set(run.evaluation.tasks) - {TESTBED_TASK}
    return {
        "models": [list(model) for model in sorted(models)],
        "calibration": sorted(calibration),
        "evaluation": sorted(evaluation),
        "tasks": sorted(tasks),
    }
