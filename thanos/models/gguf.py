"""A model in a GGUF file, as safetensors with its tokenizer."""

import io
from collections import Counter
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from thanos.errors import UserError, is_full_disk

from .quiet import quiet

# Of the models that are published in this format; what 4 or 8 bits left of a weight fits in it.
DTYPE = torch.bfloat16


def dequantize(file: Path, folder: Path) -> dict[str, Any]:
    """Write the model in `file` to `folder`, its weights in `DTYPE`; transformers reads them.

    Returns:
        What the file says of itself: name, licence, and how many tensors have which format.

    Raises:
        UserError: it is no GGUF file, or of an architecture that transformers does not read.
    """
    options = {"gguf_file": file.name, "local_files_only": True}
    try:
        said = _metadata(file)
        with quiet(), redirect_stderr(io.StringIO()):  # its reader has a bar of its own
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
            opened: Any = AutoModelForCausalLM.from_pretrained(
                file.parent,
                dtype=DTYPE,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **options,
            )
            model, report = opened
            if missing := sorted(report["missing_keys"]):
                raise ValueError(f"it lacks {missing[0]}")
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # any value of any key of the file may be wrong
        if is_full_disk(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{file} cannot be read as a GGUF model: {reason}") from error
    return said


def _metadata(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    reader = GGUFReader(file)
    fields = {name: reader.get_field(f"general.{name}") for name in ("name", "license")}
    said = {name: str(field.contents()) if field else None for name, field in fields.items()}
    formats = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return {**said, "tensors": dict(sorted(formats.items()))}
