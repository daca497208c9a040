"""Draw the calibration windows of a run and keep their token ids.

python -m thanos.stages.calibrate config.yaml --output results/calibration/<name>
"""

import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..artifacts import atomic_folder, verify_manifest, write_manifest
from ..config import Config, load
from ..data.sources import calibration_documents
from ..data.windows import documents_hash, sample_windows, tokens_hash
from ..provenance import provenance
from .command import parser, run_command
from .opening import open_tokenizer, window_length

TOKENS = "tokens.safetensors"


def draw_windows(config: Config) -> tuple[torch.Tensor, dict[str, str]]:
    """The run's calibration windows, (windows, seqlen) int64 token ids, and what identifies them.

    Raises:
        UserError: for a source or tokenizer that cannot be read, or text shorter than a window.
    """
    calibration = config.calibration
    documents = calibration_documents(calibration.source, calibration.path, config.mirror)
    windows = sample_windows(
        documents,
        open_tokenizer(config),
        calibration.windows,
        window_length(config),
        config.seed,
        source=calibration.path or calibration.source,
    )
    return windows, {
        "corpus_sha256": documents_hash(documents),
        "tokens_sha256": tokens_hash(windows),
    }


def write_windows(
    config: Config, windows: torch.Tensor, facts: dict[str, str], folder: Path, started: float
) -> None:
    """Write windows and manifest to `folder`, whole or not at all."""
    with atomic_folder(folder) as temporary:
        save_file({"tokens": windows}, temporary / TOKENS)
        made = {
            "calibration": config.calibration_identity(),
            "shape": list(windows.shape),
            **facts,
            "provenance": provenance(config, started),
        }
        write_manifest(temporary, made)


def read_windows(folder: Path) -> tuple[torch.Tensor, dict[str, str]]:
    """Read verified calibration windows and facts, as `draw_windows` returns them.

    Raises:
        UserError: if the folder is incomplete or damaged.
    """
    manifest = verify_manifest(folder, maker="rule calibration")
    facts = {key: manifest[key] for key in ("corpus_sha256", "tokens_sha256")}
    return load_file(folder / TOKENS)["tokens"], facts


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    write_windows(config, *draw_windows(config), given.output, started)


if __name__ == "__main__":
    run_command(main)
