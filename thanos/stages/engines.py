"""Open a checkpoint, pruned or compact, with what would serve it, and compare the logits.

    python -m thanos.stages.engines <folder> [--against <checkpoint>] \\
        [--python <interpreter> …] [--converter <convert_hf_to_gguf.py>]

Each interpreter opens the folder with the transformers that it has, in a process that cannot import
Thanos; this one's is always among them. With llama.cpp's converter the folder is also written as a
GGUF file, which transformers opens. What differs, or cannot be opened, makes the command fail.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from ..command import parser, run_command
from ..errors import UserError
from ..evaluation import opened_elsewhere
from ..models import StreamedBlocks, logits_by_blocks
from ..models.replay import probe_tokens

# Largest difference of a logit, relative to the largest logit but at least 1: two versions of a
# library add up in another order.
_TOLERANCE = 1e-4
_SCRIPT = Path(opened_elsewhere.__file__)


def check_engines(
    folder: Path, against: Path, interpreters: Sequence[str], converter: Path | None
) -> Iterator[str]:
    """Yield what each engine opened and how far its logits are off.

    Args:
        folder: to be opened.
        against: the checkpoint whose logits are expected.
        interpreters: of Python, each with a transformers of its own.
        converter: llama.cpp's `convert_hf_to_gguf.py`, run by this interpreter.

    Raises:
        UserError: an engine does not open the folder, or gives other logits.
    """
    for each in (folder, against):
        if not (each / "config.json").is_file():
            raise UserError(f"{each} is no model folder: it has no config.json")
    with TemporaryDirectory(prefix="thanos-") as name:
        expected, gguf = Path(name, "expected.safetensors"), Path(name, "model.gguf")
        source = StreamedBlocks(against, dtype=torch.float32)
        tokens = probe_tokens(source.model)
        rows = logits_by_blocks(source, tokens, 1, "cpu")
        logits = torch.cat([part for row in rows for part in row])[None].contiguous()
        save_file({"tokens": tokens, "logits": logits}, expected)
        largest = max(1.0, float(logits.abs().max()))
        for interpreter in interpreters:
            yield _opened(interpreter, folder, [str(expected)], largest)
        if converter is not None:
            command = [str(converter), str(folder.resolve()), "--outfile", str(gguf)]
            _run(sys.executable, [*command, "--outtype", "f32"], f"{converter.name}")
            told = _opened(sys.executable, folder, [str(expected), str(gguf)], largest)
            yield f"{told}, from the GGUF file of {converter.name}"


def _opened(interpreter: str, folder: Path, arguments: list[str], largest: float) -> str:
    command = ["-I", str(_SCRIPT), str(folder.resolve()), *arguments]
    found = json.loads(_run(interpreter, command, f"transformers of {interpreter}"))
    engine = f"transformers {found['version']}"
    if not found["difference"] <= _TOLERANCE * largest:
        raise UserError(f"{engine} gives other logits for {folder} (by {found['difference']:.3g})")
    return f"{engine}: the same logits within {found['difference']:.1e}"


def _run(interpreter: str, arguments: Sequence[str], engine: str) -> str:
    """The standard output of a command, run apart from this project."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [interpreter, *arguments],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    except OSError as error:
        raise UserError(f"{interpreter} cannot be run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(f"{engine} does not open it: {lines[-1]:.300}") from error
    return done.stdout


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--against", type=Path, help="expect its logits (default: the folder's)")
    arguments.add_argument("--python", action="append", default=[], metavar="INTERPRETER")
    arguments.add_argument("--converter", type=Path, help="convert_hf_to_gguf.py of llama.cpp")
    given = arguments.parse_args()
    interpreters = [sys.executable, *given.python]
    for told in check_engines(
        given.folder, given.against or given.folder, interpreters, given.converter
    ):
        sys.stdout.write(f"{told}\n")


if __name__ == "__main__":
    run_command(main)
