"""What a suite reads from the hub and from the package index."""

from collections.abc import Iterable
from typing import Any

from ..config import Run
from ..data.sources import CALIBRATION, EVALUATION
from ..testbed.continuations import TESTBED_TASK


def wanted(runs: Iterable[Run]) -> dict[str, list[Any]]:
    """Models, packages, splits of corpora and zero-shot tasks of some runs, sorted.

    With those that the runs leave out where they cannot be had.
    """
    models, calibration, evaluation, tasks = set(), set(), set(), set()
    packages: set[str] = set()
    for run in runs:
        model, pruning = run.evaluation.base, run.pruning
        if model.on_hub:
            models.add((model.path, model.revision or "main", model.trust_remote_code))
        drawn = (pruning and pruning.calibration, run.recovery and run.recovery.text)
        for text in (tokens.text for tokens in drawn if tokens):
            if text.source in CALIBRATION and text.path is None:
                calibration.add(text.source)
        if model.package is not None:
            packages.add(model.package)
        corpora = {cut.readable for cut in run.evaluation.windows}
        evaluation |= {*corpora, *run.absent} & EVALUATION.keys()
        tasks |= {*run.evaluation.tasks, *run.absent} - {TESTBED_TASK, *EVALUATION}
    return {
        "models": [list(model) for model in sorted(models)],
        "packages": sorted(packages),
        "calibration": sorted(calibration),
        "evaluation": sorted(evaluation),
        "tasks": sorted(tasks),
    }
