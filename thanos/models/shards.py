"""Weights that lie in several files: which files there are, and which of them holds a tensor."""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thanos.errors import UserError
from thanos.untrusted import parse_json

from .safetensors_layout import StoredTensor, read_layout

INDEX = "model.safetensors.index.json"
# What may stand beside weights and must go with them.
LICENCES = ("LICEN[SC]E*", "NOTICE*", "COPYING*", "USE_POLICY*")
CARRIED = (
    *("*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "*.bpe", "*.vocab"),
    *("additional_chat_templates/*.jinja", *LICENCES),
)
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")


def shards_without_index(folder: Path) -> list[Path]:
    """The files of a folder that are called as shards are, all that their names promise.

    Raises:
        UserError: some are missing, or they are of different sets.
    """
    found = {p: m for p in sorted(folder.glob("model-*.safetensors")) if (m := _match(p))}
    numbers = [int(match[1]) for match in found.values()]
    totals = {int(match[2]) for match in found.values()}
    if found and (len(totals) > 1 or numbers != list(range(1, totals.pop() + 1))):
        names = ", ".join(file.name for file in found)
        raise UserError(
            f"{folder} has no {INDEX}, and of the shards that their names tell of only {names}; "
            "copy or download the model again"
        )
    return list(found)


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """The tensors in a model's weight files by name; where two hold the same, the index decides.

    Raises:
        UserError: a file is damaged; the index names a file that lacks the tensor; two files hold
            a tensor that no index tells of.
    """
    holding: dict[str, list[StoredTensor]] = defaultdict(list)
    for file in (files := list(files)):
        for name, tensor in read_layout(file).items():
            holding[name].append(tensor)
    index = files[0].parent / INDEX if len(files) > 1 else None
    listed: dict[str, Any] = {}
    if index is not None and index.is_file():
        listed = parse_json(index.read_bytes())["weight_map"]  # the files were found by it
    for name in listed.keys() - holding.keys():
        raise UserError(f"weight index {index} names {name!r:.80}, which no file holds")
    return {name: _chosen(name, tensors, listed, index) for name, tensors in holding.items()}


def index_of(tensors: dict[str, StoredTensor]) -> dict[str, Any]:
    """The content of an index of tensors that lie in several files."""
    return {
        "metadata": {"total_size": sum(tensor.bytes for tensor in tensors.values())},
        "weight_map": {name: tensor.file.name for name, tensor in sorted(tensors.items())},
    }


def _chosen(
    name: str, tensors: list[StoredTensor], listed: dict[str, Any], index: Path | None
) -> StoredTensor:
    if name not in listed:
        if len(tensors) > 1:
            files = " and ".join(tensor.file.name for tensor in tensors)
            raise UserError(f"{files} both hold {name!r:.80}, and no {INDEX} says which is right")
        return tensors[0]
    for tensor in tensors:
        if tensor.file.name == listed[name]:
            return tensor
    raise UserError(
        f"weight index {index} says that {name!r:.80} is in {listed[name]!r:.80}, but it is in "
        f"{tensors[0].file.name}; copy or download the model again"
    )


def _match(file: Path) -> re.Match[str] | None:
    return _SHARD.fullmatch(file.name)
