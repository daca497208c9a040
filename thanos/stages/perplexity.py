"""Measure the perplexity of a checkpoint, or of the dense model, on the configured corpora.

python -m thanos.stages.perplexity config.yaml [--checkpoint <folder>] --output perplexity.json
"""

import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..artifacts import write_json
from ..config import Config, load
from ..data.sources import evaluation_max_windows, evaluation_text
from ..data.windows import cut_windows, text_hash, tokens_hash
from ..evaluation.perplexity import perplexity
from ..provenance import provenance
from .command import parser, run_command
from .opening import open_for_evaluation, open_tokenizer, window_length


def measure_perplexity(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Perplexity per corpus with everything that determines the number, for `perplexity.json`."""
    evaluation = config.evaluation
    seqlen = window_length(config)
    results: dict[str, Any] = {}
    for corpus in evaluation.corpora:
        path = evaluation.path if corpus == "text" else None
        text = evaluation_text(corpus, path, evaluation.mirror)
        limits = [n for n in (evaluation.max_windows, evaluation_max_windows(corpus)) if n]
        windows = cut_windows(
            text, tokenizer, seqlen, min(limits, default=None), source=path or corpus
        )
        result = perplexity(model, windows, evaluation.batch_size, model.device)
        results[corpus] = {
            "perplexity": result.perplexity,
            "loss": result.loss,
            "windows": result.windows,
            "seqlen": result.seqlen,
            "corpus_sha256": text_hash(text),
            "tokens_sha256": tokens_hash(windows),
        }
    return results


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--checkpoint", type=Path)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    model = open_for_evaluation(config, given.checkpoint)
    results = measure_perplexity(config, model, open_tokenizer(config))
    write_json(given.output, {**results, "provenance": provenance(config, started)})


if __name__ == "__main__":
    run_command(main)
