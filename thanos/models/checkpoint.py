"""Write a pruned model as a plain safetensors folder."""

import errno
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from thanos.errors import UserError

from .quiet import quiet

_SHARD_SIZE = "5GB"


def save_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: str | Path
) -> None:
    """Write model and tokenizer to `folder`, which `AutoModelForCausalLM.from_pretrained` opens.

    Zeros stay exact zeros, the dtype and tied embeddings are kept, and config.json carries no
    `sparsity_config`, which serving engines reject. The folder is written in place: give a
    temporary one and move it when this returns.

    Raises:
        UserError: no space left on the device.
    """
    if hasattr(model.config, "sparsity_config"):
        del model.config.sparsity_config
    try:
        with quiet():
            model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors and tokenizers have no OSError, only its text
        if _is_full_disk(error):
            raise UserError(f"no space left on device while writing {folder}") from error
        raise


def _is_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return f"os error {errno.ENOSPC}" in str(error)
