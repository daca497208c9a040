"""How much memory pruning a model will take, from the headers of its files: no weight is read.

The estimate is meant to lie a little above the truth. It imports neither torch nor transformers,
so that a workflow can ask for it while it is being planned.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from thanos.errors import UserError
from thanos.untrusted import parse_json

from .context import as_number, longest_window, text_part
from .location import weight_files
from .safetensors_layout import FLOAT_BYTES, StoredTensor, read_layout

MIB = 2**20

_FLOAT32 = 4  # bytes
# Interpreter, torch, transformers and what they allocate on first use: 405 MiB measured, and room.
_PROGRAM = 450 * MIB
_PROGRAM_WITH_CUDA = 3072 * MIB
_IN_BLOCK = re.compile(r"(?P<list>(?:.*?\.)?[A-Za-z_]\w*)\.(?P<index>\d+)\..+")
_TOKENS_PER_SLICE = 16384  # of inputs that are widened at a time, see InputStatistics
# What the allocator keeps in pieces and the libraries' scratch memory come on top.
_SLACK = 1.15
_SOLVER_BUDGET = 512 * MIB  # of temporaries, see thanos.pruning.memory

Statistics = Literal["none", "diagonal", "gram"]


@dataclass(frozen=True)
class Work:
    """What of a run its memory depends on.

    Attributes:
        windows: calibration windows.
        tokens: per window, before the model's own limit.
        batch_size: windows per forward pass.
        statistics: gathered of every layer's inputs.
        squares: matrices of a Gram matrix's size that pruning a layer keeps beside it.
        temporaries: matrices of a weight's size that it would take if memory did not matter.
        precision: bytes per number in which layers are pruned.
        hidden_budget: bytes of hidden states beyond which they lie in mapped files.
    """

    windows: int
    tokens: int
    batch_size: int
    statistics: Statistics
    squares: float
    temporaries: int
    precision: int
    hidden_budget: int


@dataclass(frozen=True)
class MemoryPlan:
    """Expected peaks in bytes, and the largest of what they are made of."""

    host: int
    device: int  # 0 where everything is computed on the host
    block: int  # weights of the largest block
    around: int  # embeddings, last norm and head; they make way for the first block
    gram: int  # statistics of one block's layers
    hidden: int  # hidden states of all windows, in memory
    forward: int  # activations of one batch within a block
    solve: int  # what pruning the most demanding layer takes besides

    def __str__(self) -> str:
        parts = {key: value for key, value in asdict(self).items() if key not in ("host", "device")}
        peaks = f"{self.host / MIB:,.0f} MiB on the host"
        if self.device:
            peaks += f", {self.device / MIB:,.0f} MiB on the device"
        details = ", ".join(f"{key} {value / MIB:,.0f}" for key, value in parts.items())
        return f"{peaks} ({details})"


def plan_memory(folder: Path, work: Work, *, on_device: bool = False) -> MemoryPlan:
    """Expect the peak memory of pruning the model in `folder` block by block.

    Args:
        folder: a model folder with safetensors.
        work: what is to be done.
        on_device: whether blocks are pruned on an accelerator.

    Raises:
        UserError: the folder's files are missing or damaged, or hold no decoder blocks.
    """
    tensors = [tensor for file in weight_files(folder) for tensor in read_layout(file).values()]
    blocks, outside = _split(tensors, folder)
    stored = max(FLOAT_BYTES.get(tensor.dtype, 1) for tensor in blocks[0])
    # On the host everything runs in float32 at least, on a device as it is stored.
    size = stored if on_device else max(stored, _FLOAT32)
    layers = _layers(blocks[0])
    if not layers:
        raise UserError(f"{folder} holds no decoder blocks with linear layers")
    # Nearly every matrix of a block reads or writes hidden states.
    hidden_size = Counter(side for _, shape in layers for side in shape).most_common(1)[0][0]
    widest = max(max(shape) for _, shape in layers)
    config = _configuration(folder)
    tokens = min(work.tokens, longest_window(config) or work.tokens)
    # Experts per token: not more than there are.
    chosen = min(as_number(config.get("num_experts_per_tok")) or 0, len(layers))
    batch = min(work.windows, work.batch_size) * tokens

    block = max(sum(tensor.bytes for tensor in tensors) for tensors in blocks) * size // stored
    around = sum(tensor.bytes for tensor in outside) * size // stored
    hidden = gram = forward = 0
    if work.statistics != "none":
        hidden = work.windows * tokens * hidden_size * size
        forward = batch * (6 * hidden_size + 3 * widest) * size
        # An expert's inputs, both its inner layers and its outputs, for every token that it gets.
        forward += batch * chosen * (2 * hidden_size + 3 * widest) * size
        gram = sum(width**2 for width in _input_groups(layers)) * work.precision
        if work.statistics == "diagonal":
            gram = sum(width for _, (_, width) in layers) * work.precision
        if size != work.precision:
            forward += min(batch, _TOKENS_PER_SLICE) * widest * work.precision
    solve = max(_solve(*shape, stored, work) for _, shape in layers)
    pruning = block + gram + max(forward, solve)
    kept = hidden if hidden <= work.hidden_budget else batch * hidden_size * size
    if on_device:
        host, device = _PROGRAM_WITH_CUDA + _with_slack(kept + max(around, block)), pruning
    else:
        host, device = _PROGRAM + _with_slack(kept + max(around, pruning)), 0
    return MemoryPlan(host, _with_slack(device), block, around, gram, kept, forward, solve)


def _with_slack(size: int) -> int:
    return int(_SLACK * size)


def _solve(rows: int, columns: int, stored: int, work: Work) -> int:
    """Bytes that pruning a layer takes besides its weight in the block and its Gram matrix.

    The weight as it is stored, before and after, in `precision` between, and up to three masks of
    a byte per entry; what lies beside the Gram matrix and is as large; and the temporaries of one
    segment of rows, which `thanos.pruning.memory` keeps below its budget.
    """
    entries, square = rows * columns, columns**2
    copies = entries * (2 * stored + work.precision + 3)
    segment = min(_SOLVER_BUDGET, work.temporaries * entries * work.precision)
    return copies + int(work.squares * square * work.precision) + segment


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


def _input_groups(layers: Iterable[tuple[str, tuple[int, int]]]) -> list[int]:
    """Widths of the different inputs of a block's layers, one per group that shares an input.

    Which layers share is known only when the model runs. Each part of a block (attention, MLP)
    reads one input and writes back from another; layers of other widths read others.
    """
    parts: dict[str, list[int]] = defaultdict(list)
    for name, (_, width) in layers:
        parts[name.rpartition(".")[0].rpartition(".")[0]].append(width)
    groups: list[int] = []
    for widths in parts.values():
        different = sorted(set(widths))
        groups += different * 2 if len(different) == 1 < len(widths) else different
    return groups


def _configuration(folder: Path) -> dict[str, Any]:
    """The configuration of the model's text part."""
    try:
        config = parse_json((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return text_part(config) if isinstance(config, dict) else {}
