"""Draw calibration windows and keep their token ids.

python -m thanos.stages.calibrate <spec> [--place …] --output results/calibration/<name>
"""

import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..artifacts import atomic_folder, verify_manifest, write_manifest
from ..command import run_command, stage_parser
from ..data.sources import calibration_documents
from ..data.windows import begin_of_text, sample_windows, survey, tokens_hash
from ..identity import CalibrationSpec, Place
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..opening import checked_text, open_tokenizer, window_length
from ..provenance import provenance

TOKENS = "tokens.safetensors"


def calibrate(spec: CalibrationSpec, place: Place, folder: Path) -> None:
    """Write the windows, (windows, seqlen) int64 token ids, to `folder`, whole or not at all.

    Raises:
        UserError: for a source or tokenizer that cannot be read, or text shorter than a window.
    """
    started, found = time.time(), fingerprint(spec, place)
    path = checked_text(spec.text, "calibration")
    documents = calibration_documents(spec.text.source, path, place.mirror)
    surveyed = survey(documents)
    tokenizer = open_tokenizer(spec.model, place)
    windows = sample_windows(
        documents,
        tokenizer,
        spec.windows,
        window_length(spec.model, spec.context, place),
        spec.seed,
        add_bos=spec.add_bos,
        source=path or spec.text.source,
        sizes=surveyed.sizes,
    )
    facts = {
        "spec": spec.to_json(),
        "corpus_sha256": surveyed.sha256,
        "begin_of_text": begin_of_text(windows, tokenizer),
        "provenance": provenance(started, found, place=place),
    }
    write_windows(windows, facts, folder)


def write_windows(windows: Tensor, facts: dict[str, Any], folder: Path) -> None:
    """Write windows, (windows, seqlen) int64 token ids, with what is known of them."""
    with atomic_folder(folder) as temporary:
        save_file({"tokens": windows}, temporary / TOKENS)
        hashed = {"shape": list(windows.shape), "tokens_sha256": tokens_hash(windows)}
        write_manifest(temporary, {**facts, **hashed})


def read_windows(folder: Path) -> tuple[Tensor, dict[str, Any]]:
    """Read verified calibration windows, and the hashes of corpus and tokens.

    Raises:
        UserError: if the folder is incomplete or damaged.
    """
    manifest = verify_manifest(folder, maker="rule calibration")
    facts = {key: manifest[key] for key in ("corpus_sha256", "tokens_sha256")}
    return load_file(folder / TOKENS)["tokens"], facts


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    calibrate(read_spec(CalibrationSpec, given.spec), given.place, given.output)


if __name__ == "__main__":
    run_command(main)
