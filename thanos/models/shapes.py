"""The shapes of a model, from the headers of its files: no weight is read.

Imports neither torch nor transformers, so that a workflow can ask while it is being planned.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thanos.errors import UserError
from thanos.untrusted import parse_json

from .context import as_number, longest_window, text_part
from .location import weight_files
from .safetensors_layout import FLOAT_BYTES, StoredTensor
from .shards import stored_tensors

EXPERT = ".experts."  # in a layer's name, before the expert's number
_IN_BLOCK = re.compile(r"(?P<list>(?:.*?\.)?[A-Za-z_]\w*)\.(?P<index>\d+)\..+")


@dataclass(frozen=True)
class Shapes:
    """What of a model its memory depends on.

    Attributes:
        blocks: bytes of every block's weights, as they are stored.
        around: bytes of embeddings, last norm and head.
        stored: bytes per number of the first block.
        layers: name and (out_features, in_features) of the first block's linear layers.
        vocabulary: rows of the embedding; as many logits has a position.
        largest: elements of the largest tensor.
        longest: tokens that the configuration allows in a window, if it says so.
        experts_per_token: zero without a mixture.
    """

    blocks: tuple[int, ...]
    around: int
    stored: int
    layers: tuple[tuple[str, tuple[int, int]], ...]
    vocabulary: int
    largest: int
    longest: int | None
    experts_per_token: int

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        return _hidden(self.layers)

    @property
    def of_experts(self) -> list[tuple[str, tuple[int, int]]]:
        """Those of `layers` that tokens are routed to."""
        return [layer for layer in self.layers if EXPERT in layer[0]]

    @property
    def of_all_tokens(self) -> list[tuple[str, tuple[int, int]]]:
        """The other ones."""
        return [layer for layer in self.layers if EXPERT not in layer[0]]

    @property
    def widest(self) -> int:
        """The widest input or output of a linear layer."""
        return max(max(shape) for _, shape in self.layers)


def read_shapes(folder: Path) -> Shapes:
    """The shapes of the model in `folder`, which holds safetensors.

    Raises:
        UserError: the folder's files are missing or damaged, or hold no decoder blocks.
    """
    tensors = list(stored_tensors(weight_files(folder)).values())
    blocks, outside = _split(tensors, folder)
    layers = _layers(blocks[0])
    if not layers:
        raise UserError(f"{folder} holds no decoder blocks with linear layers")
    config = _configuration(folder)
    matrices = [tensor for tensor in outside if len(tensor.shape) == 2]
    return Shapes(
        blocks=tuple(sum(tensor.bytes for tensor in block) for block in blocks),
        around=sum(tensor.bytes for tensor in outside),
        stored=max(FLOAT_BYTES.get(tensor.dtype, 1) for tensor in blocks[0]),
        layers=tuple(layers),
        vocabulary=_vocabulary(matrices, layers),
        largest=max(tensor.elements for tensor in tensors),
        longest=longest_window(config),
        # Not more than there are.
        experts_per_token=min(as_number(config.get("num_experts_per_tok")) or 0, len(layers)),
    )


def _hidden(layers: Iterable[tuple[str, tuple[int, int]]]) -> int:
    """The commonest side of a block's matrices: nearly all read or write the hidden states."""
    return Counter(side for _, shape in layers for side in shape).most_common(1)[0][0]


def _vocabulary(
    matrices: Iterable[StoredTensor], layers: Iterable[tuple[str, tuple[int, int]]]
) -> int:
    """The longest side of a matrix outside the blocks that is not the hidden states' width."""
    hidden, shapes = _hidden(layers), [tensor.shape for tensor in matrices]
    return max((side for shape in shapes for side in shape if side != hidden), default=hidden)


def _split(
    tensors: Iterable[StoredTensor], folder: Path
) -> tuple[list[list[StoredTensor]], list[StoredTensor]]:
    """The tensors of each block of the longest list of blocks, by weight, and all others."""
    lists: dict[str, dict[int, list[StoredTensor]]] = defaultdict(lambda: defaultdict(list))
    for tensor in tensors:
        if match := _IN_BLOCK.fullmatch(tensor.name):
            lists[match["list"]][int(match["index"])].append(tensor)
    if not lists:
        raise UserError(f"{folder} holds no decoder blocks: no weight's name has a block's number")
    sizes = {name: sum(t.bytes for b in found.values() for t in b) for name, found in lists.items()}
    decoder = max(sizes, key=lambda name: sizes[name])
    blocks = list(lists[decoder].values())
    inside = {tensor.name for block in blocks for tensor in block}
    return blocks, [tensor for tensor in tensors if tensor.name not in inside]


def _layers(block: Iterable[StoredTensor]) -> list[tuple[str, tuple[int, int]]]:
    """Name and (out_features, in_features) of a block's linear layers."""
    by_name = {tensor.name: tensor for tensor in block}
    layers = []
    for name, tensor in by_name.items():
        if len(tensor.shape) == 2 and name.endswith("weight"):
            rows, columns = tensor.shape
            bias = by_name.get(f"{name.removesuffix('weight')}bias")
            if bias is not None and bias.shape == (columns,) != (rows,):
                rows, columns = columns, rows  # as long as the outputs, so stored transposed
            layers.append((name, (rows, columns)))
        elif len(tensor.shape) == 3:  # a matrix for every expert
            experts, rows, columns = tensor.shape
            owner, _, part = name.rpartition(".")
            layers += [(f"{owner}.{n}.{part}.weight", (rows, columns)) for n in range(experts)]
    return layers


def _configuration(folder: Path) -> dict[str, Any]:
    """The configuration of the model's text part."""
    try:
        config = parse_json((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return text_part(config) if isinstance(config, dict) else {}
