"""Measure the perplexity of a checkpoint, or of the dense model, on the configured corpora.

    python -m thanos.stages.perplexity config.yaml [--checkpoint <folder>] [--windows <folder>] \\
        --output perplexity.json
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..artifacts import write_json
from ..config import Config, load
from ..evaluation.perplexity import perplexity
from ..provenance import provenance
from .command import parser, run_command
from .corpora import cut_corpora, read_corpora
from .opening import open_for_evaluation


def measure_perplexity(
    config: Config,
    model: PreTrainedModel,
    windows: dict[str, torch.Tensor],
    facts: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Perplexity per corpus with everything that determines the number.

    Args:
        config: of the run.
        model: on its device.
        windows: (n, seqlen) token ids of every corpus.
        facts: hashes of every corpus, recorded beside its perplexity.
    """
    results: dict[str, Any] = {}
    for corpus, tokens in windows.items():
        result = perplexity(model, tokens, config.evaluation.batch_size, model.device)
        results[corpus] = {
            "perplexity": result.perplexity,
            "loss": result.loss,
            "windows": result.windows,
            "seqlen": result.seqlen,
            **facts[corpus],
        }
    return results


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--windows", type=Path, help="folder of thanos.stages.corpora")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    windows, facts = read_corpora(given.windows) if given.windows else cut_corpora(config)
    model = open_for_evaluation(config, given.checkpoint)
    results = measure_perplexity(config, model, windows, facts)
    write_json(given.output, {"corpora": results, "provenance": provenance(config, started)})


if __name__ == "__main__":
    run_command(main)
