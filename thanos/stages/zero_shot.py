"""Score a checkpoint, or the dense model, on the configured zero-shot tasks.

    python -m thanos.stages.zero_shot config.yaml [--checkpoint <folder>] [--items <file>] \\
        --output zero_shot.json
"""

import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..artifacts import write_json
from ..config import Config, load
from ..evaluation.zero_shot import zero_shot
from ..provenance import provenance
from ..testbed.continuations import TASKS_FOLDER
from .command import parser, run_command
from .opening import open_for_evaluation, open_tokenizer


def measure_zero_shot(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Path | None = None,
) -> dict[str, Any]:
    """Accuracy per task and their mean, in percent, for `zero_shot.json`.

    Args:
        config: of the run.
        model: on its device.
        tokenizer: of the model.
        items: folder with the items of the testbed's task.
    """
    evaluation = config.evaluation
    result = zero_shot(
        model,
        tokenizer,
        evaluation.tasks,
        batch_size=evaluation.task_batch_size,
        limit=evaluation.limit,
        seed=config.seed,
        mirror=evaluation.mirror,
        include_path=TASKS_FOLDER,
        data_folder=items,
    )
    return {
        "tasks": {
            task.task: {
                "acc": task.accuracy,
                "acc_stderr": task.standard_error,
                "acc_norm": task.normalized_accuracy,
                "n": task.items,
                "version": task.version,
            }
            for task in result.tasks
        },
        "mean_acc": result.mean_accuracy,
        "batch_size": result.batch_size,
        "harness_version": result.harness_version,
    }


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--items", type=Path, help="folder of the testbed task's items")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    model = open_for_evaluation(config, given.checkpoint)
    results = measure_zero_shot(config, model, open_tokenizer(config), given.items)
    write_json(given.output, {**results, "provenance": provenance(config, started)})


if __name__ == "__main__":
    run_command(main)
