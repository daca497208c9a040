"""Open a model with the transformers of whichever interpreter runs this file, and with no Thanos.

    <python> -I opened_elsewhere.py <folder> <expected.safetensors> [<file.gguf>]

The expected file holds `tokens` (1, T) and `logits` (1, T, V). Prints JSON: version, difference.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file


def main(folder: str, expected: str, gguf: str | None = None) -> None:
    """Compare the logits of the model in a folder, or in a GGUF file of it, with those expected."""
    where, options = folder, dict[str, Any]()
    if gguf is not None:
        where, options = str(Path(gguf).parent), {"gguf_file": Path(gguf).name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        where, torch_dtype=torch.float32, local_files_only=True, **options
    )
    given = load_file(expected)
    with torch.inference_mode():
        logits = model.eval()(input_ids=given["tokens"]).logits
    difference = float((logits - given["logits"]).abs().max())
    sys.stdout.write(json.dumps({"version": transformers.__version__, "difference": difference}))


if __name__ == "__main__":
    sys.modules["thanos"] = None  # type: ignore[assignment]  # importing it is an error
    main(*sys.argv[1:])
