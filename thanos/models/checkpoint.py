"""Write a pruned model as a plain safetensors folder."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from thanos.errors import UserError, is_full_disk
from thanos.untrusted import parse_json

from .location import weight_files
from .quiet import quiet
from .safetensors_layout import StoredTensor, copy_with


def copy_checkpoint(
    source: Path,
    pruned: Mapping[str, StoredTensor],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: Path,
) -> None:
    """Write to `folder` the model in `source`, with pruned weights in the place of dense ones.

    Files, shards, names and formats are the source's, so that whatever opens the one opens the
    other; weights go from file to file and are never in memory together. config.json carries no
    `sparsity_config`, which serving engines reject. The folder is written in place: give a
    temporary one and move it when this returns.

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
        for file in _rewritten(source):
            values = _read_object(file)
            values.pop("sparsity_config", None)
            (folder / file.name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def check_copied(source: Path) -> None:
    """Read what `copy_checkpoint` will read, before there is anything to write.

    Raises:
        UserError: a JSON file is unusable.
    """
    for file in _rewritten(source):
        _read_object(file)


def _rewritten(source: Path) -> list[Path]:
    names = ("config.json", "generation_config.json")
    return [source / name for name in names if (source / name).is_file()]


def _read_object(file: Path) -> dict[str, Any]:
    try:
        values = parse_json(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); copy or download it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{file} holds no JSON object; copy or download it again")
    return values


@contextmanager
def _full_disk_advice(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tokenizers have no OSError, only its text
        if is_full_disk(error):
            raise UserError(f"no space left on device while writing {folder}") from error
        raise
