"""Write a pruned model as a plain safetensors folder."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from thanos.errors import UserError, is_full_disk

from .location import weight_files
from .quiet import quiet
from .safetensors_layout import StoredTensor, copy_with

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
    with _full_disk_advice(folder), quiet():
        model.save_pretrained(folder, max_shard_size=_SHARD_SIZE)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def copy_checkpoint(
    source: Path,
    pruned: Mapping[str, StoredTensor],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
) -> None:
    """Write to `folder` the model in `source`, with pruned weights in the place of dense ones.

    Files, shards, names and formats are the source's, so that whatever opens the one opens the
    other; weights go from file to file and are never in memory together. As in `save_checkpoint`
    there is no `sparsity_config`, and the folder is written in place.

    Args:
        source: a model folder with safetensors.
        pruned: the pruned weights, by their name in the source's files.
        tokenizer: of the model.
        folder: an existing folder.

    Raises:
        UserError: no space left on the device.
    """
    with _full_disk_advice(folder), quiet():
        for file in weight_files(source):
            copy_with(file, pruned, folder / file.name)
        for file in (*source.glob("*.safetensors.index.json"), *source.glob("*.py")):
            shutil.copyfile(file, folder / file.name)
        for name in ("config.json", "generation_config.json"):
            if (source / name).is_file():
                values = json.loads((source / name).read_text(encoding="utf-8"))
                values.pop("sparsity_config", None)
                (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


@contextmanager
def _full_disk_advice(folder: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors and tokenizers have no OSError, only its text
        if is_full_disk(error):
            raise UserError(f"no space left on device while writing {folder}") from error
        raise
