"""Cut an evaluation corpus into windows of token ids, once for all that is measured on it.

python -m thanos.stages.corpora <spec> [--place …] --output results/windows/<name>
"""

import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..artifacts import atomic_folder, verify_manifest, write_manifest
from ..command import run_command, stage_parser
from ..data.sources import evaluation_max_windows, evaluation_text
from ..data.windows import begin_of_text, cut_windows, text_hash, tokenizer_hash, tokens_hash
from ..identity import Place, WindowsSpec
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..opening import checked_text, open_tokenizer, window_length
from ..provenance import provenance

WINDOWS = "windows.safetensors"
_FACTS = ("corpus_sha256", "tokens_sha256", "tokenizer_sha256", "begin_of_text")


def cut_corpus(spec: WindowsSpec, place: Place, folder: Path) -> None:
    """Write the windows, (n, seqlen) int64 token ids, to `folder`, whole or not at all.

    Raises:
        UserError: for a corpus that cannot be read or is shorter than a window.
    """
    started, found = time.time(), fingerprint(spec, place)
    path = checked_text(spec.text, "evaluation")
    text = evaluation_text(spec.readable, path, place.mirror)
    tokenizer = open_tokenizer(spec.model, place)
    limits = [n for n in (spec.max_windows, evaluation_max_windows(spec.readable)) if n]
    seqlen = window_length(spec.model, spec.context, place)
    windows = cut_windows(
        text,
        tokenizer,
        seqlen,
        min(limits, default=None),
        add_bos=spec.add_bos,
        source=path or spec.readable,
    )
    with atomic_folder(folder) as temporary:
        save_file({"windows": windows}, temporary / WINDOWS)
        facts = {
            "spec": spec.to_json(),
            "corpus_sha256": text_hash(text),
            "tokens_sha256": tokens_hash(windows),
            "tokenizer_sha256": tokenizer_hash(tokenizer),
            "begin_of_text": begin_of_text(windows, tokenizer),
            "provenance": provenance(started, found, place=place),
        }
        write_manifest(temporary, facts)


def read_corpus(folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """Read verified windows, and the facts that make a perplexity on them reproducible.

    Raises:
        UserError: if the folder is incomplete or damaged.
    """
    manifest = verify_manifest(folder, maker="rule evaluation_windows")
    facts = {key: manifest[key] for key in _FACTS if key in manifest}
    return load_file(folder / WINDOWS)["windows"], facts


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    cut_corpus(read_spec(WindowsSpec, given.spec), given.place, given.output)


if __name__ == "__main__":
    run_command(main)
