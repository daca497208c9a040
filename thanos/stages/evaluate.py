"""Evaluate a checkpoint, or the dense model: perplexity, accuracy on zero-shot tasks, size.

    python -m thanos.stages.evaluate config.yaml [--checkpoint <folder>] [--windows <folder>] \\
        [--items <folder>] --perplexity perplexity.json --zero-shot zero_shot.json \\
        --size size.json

All in one process: on small models most of its time is spent on starting. Without corpora or
tasks in the configuration the file of that part lists none.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..artifacts import verify_manifest, write_json
from ..compression.packing import Sizes, file_sizes
from ..config import Config, load
from ..evaluation.perplexity import perplexity_of_logits
from ..evaluation.quantization import QuantizedBlocks
from ..evaluation.zero_shot import zero_shot
from ..models import StreamedBlocks, hidden_states, logits_by_blocks
from ..models.location import weight_files
from ..provenance import provenance
from ..testbed.continuations import TASKS_FOLDER
from .command import parser, run_command
from .corpora import cut_corpora, read_corpora
from .device import resolve_device
from .opening import blocks_for_evaluation, dense_folder, open_for_evaluation, open_tokenizer
from .planning import hidden_budget


def measure_perplexity(
    config: Config,
    model: StreamedBlocks,
    windows: dict[str, torch.Tensor],
    facts: dict[str, dict[str, Any]],
    scratch: Path,
) -> dict[str, Any]:
    """Perplexity per corpus with everything that determines the number.

    Args:
        config: of the run.
        model: its blocks; one at a time is in memory.
        windows: (n, seqlen) token ids of every corpus.
        facts: hashes of every corpus, recorded beside its perplexity.
        scratch: folder for hidden states that memory has no room for.
    """
    device, batch_size = resolve_device(config.device), config.evaluation.batch_size
    source = QuantizedBlocks(model, config.evaluation.quantization)
    results: dict[str, Any] = {}
    for corpus, tokens in windows.items():
        needed = model.hidden_bytes(tokens.numel())
        hidden = hidden_states(needed, hidden_budget(config), scratch)
        logits = logits_by_blocks(source, tokens, batch_size, device, hidden)
        result = perplexity_of_logits(logits, tokens)
        results[corpus] = {
            "perplexity": result.perplexity,
            "loss": result.loss,
            "windows": result.windows,
            "seqlen": result.seqlen,
            "window_losses": list(result.window_losses),
            **facts[corpus],
        }
    return results


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
        mirror=config.mirror,
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
        "texts": {
            text.task: {
                "word_perplexity": text.word_perplexity,
                "byte_perplexity": text.byte_perplexity,
                "bits_per_byte": text.bits_per_byte,
                "n": text.items,
                "version": text.version,
            }
            for text in result.texts
        },
        "limit": result.limit,
        "batch_size": result.batch_size,
        "harness_version": result.harness_version,
    }


def measure_size(folder: Path) -> dict[str, Any]:
    """Weights and bytes of a model folder as it is and packed, for `size.json`.

    One tensor is in memory at a time. `pruned_tensors` are those that packing makes smaller.
    """
    sizes = sum((file_sizes(file) for file in weight_files(folder)), Sizes())
    return {
        "parameters": {"total": sizes.weights, "nonzero": sizes.nonzero},
        "bytes": {
            "dense": sizes.dense,
            "packed": sizes.packed,
            "pruned_tensors": sizes.sparse_dense,
            "pruned_tensors_packed": sizes.sparse_packed,
        },
    }


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--windows", type=Path, help="folder of thanos.stages.corpora")
    arguments.add_argument("--items", type=Path, help="folder of thanos.stages.continuations")
    arguments.add_argument("--perplexity", type=Path, required=True)
    arguments.add_argument("--zero-shot", type=Path, required=True)
    arguments.add_argument("--size", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    corpora: dict[str, Any] = {}
    if config.evaluation.corpora:
        windows, facts = read_corpora(given.windows) if given.windows else cut_corpora(config)
        blocks = blocks_for_evaluation(config, given.checkpoint)
        corpora = measure_perplexity(config, blocks, windows, facts, given.perplexity.parent)
    tasks: dict[str, Any] = {"tasks": {}}
    if config.evaluation.tasks:
        if given.items:
            verify_manifest(given.items, maker="rule continuations")
        model = open_for_evaluation(config, given.checkpoint)
        tasks = measure_zero_shot(config, model, open_tokenizer(config), given.items)
    size = measure_size(given.checkpoint or dense_folder(config))
    made = {"provenance": provenance(config, started)}
    write_json(given.perplexity, {"corpora": corpora, **made})
    write_json(given.zero_shot, {**tasks, **made})
    write_json(given.size, {**size, **made})


if __name__ == "__main__":
    run_command(main)
