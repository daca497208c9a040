"""Cut a run's evaluation corpora into windows of token ids, once for all the runs that share them.

python -m thanos.stages.corpora config.yaml --output results/evaluation/<name>
"""

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..artifacts import atomic_folder, verify_manifest, write_manifest
from ..config import Config, load
from ..data.sources import evaluation_max_windows, evaluation_text
from ..data.windows import cut_windows, text_hash, tokenizer_hash, tokens_hash
from ..provenance import provenance
from .command import parser, run_command
from .opening import open_tokenizer, window_length

WINDOWS = "windows.safetensors"


def cut_corpora(config: Config) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Windows (n, seqlen) of every corpus, and the facts that make its perplexity reproducible.

    Raises:
        UserError: for a corpus that cannot be read or is shorter than a window.
    """
    evaluation = config.evaluation
    tokenizer, seqlen = open_tokenizer(config), window_length(config)
    windows, facts = {}, {}
    for corpus in evaluation.corpora:
        path = evaluation.path if corpus == "text" else None
        text = evaluation_text(corpus, path, config.mirror)
        limits = [n for n in (evaluation.max_windows, evaluation_max_windows(corpus)) if n]
        most = min(limits, default=None)
        windows[corpus] = cut_windows(text, tokenizer, seqlen, most, source=path or corpus)
        facts[corpus] = {
            "corpus_sha256": text_hash(text),
            "tokens_sha256": tokens_hash(windows[corpus]),
            "tokenizer_sha256": tokenizer_hash(tokenizer),
        }
    return windows, facts


def read_corpora(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """Read verified windows and facts, as `cut_corpora` returns them.

    Raises:
        UserError: if the folder is incomplete or damaged.
    """
    manifest = verify_manifest(folder, maker="rule evaluation_windows")
    return load_file(folder / WINDOWS), manifest["corpora"]


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    windows, facts = cut_corpora(config)
    with atomic_folder(given.output) as temporary:
        save_file(windows, temporary / WINDOWS)
        write_manifest(temporary, {"corpora": facts, "provenance": provenance(config, started)})


if __name__ == "__main__":
    run_command(main)
