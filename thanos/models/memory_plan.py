"""How much memory pruning a model will take, from the headers of its files: no weight is read.

The estimate is meant to lie a little above the truth. It imports neither torch nor transformers,
so that a workflow can ask for it while it is being planned.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from .shapes import Shapes, read_shapes

MIB = 2**20

FLOAT32 = 4  # bytes
# Interpreter, torch, transformers and what they allocate on first use: 405 MiB measured, and room.
PROGRAM = 450 * MIB
PROGRAM_WITH_CUDA = 3072 * MIB
_TOKENS_PER_SLICE = 16384  # of inputs that are widened at a time, see InputStatistics
# What the allocator keeps in pieces and the libraries' scratch memory come on top.
_SLACK = 1.15
# Copies of a block's weights in float32: moving, the best, now, their gradients, Adam's moments.
_TRAINED = 6
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
        streams: of hidden states: 2 where the dense model runs beside the pruned one, which takes
            a second block and, beside every Gram matrix, one more.
        compares: whether every group of a block's layers is asked what it gets in the dense model;
            what hidden states leave of their budget then keeps it, on the host.
        trains: whether blocks are trained once they are pruned, see `reconstruction`.
        tries: whether blocks of the dense model are pruned first, to see what that does.
        overlap: whether a block is read and another written meanwhile.
    """

    windows: int
    tokens: int
    batch_size: int
    statistics: Statistics
    squares: float
    temporaries: int
    precision: int
    hidden_budget: int
    streams: int = 1
    compares: bool = False
    trains: bool = False
    tries: bool = False
    overlap: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """Expected peaks in bytes, and the largest of what they are made of."""

    host: int
    device: int  # with hidden states, which may stay there; 0 where the host computes everything
    block: int  # weights of the largest block
    around: int  # embeddings, last norm and head; they make way for the first block
    gram: int  # statistics of one block's layers
    hidden: int  # hidden states of all windows, in memory
    inputs: int  # what a block's layers get of all windows in the dense model
    forward: int  # activations of one batch within a block
    solve: int  # what pruning the most demanding layer takes besides
    overlap: int  # the block that is read and the pruned weights that are written meanwhile

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
    shapes = read_shapes(folder)
    layers, hidden_size, widest = shapes.layers, shapes.hidden, shapes.widest
    # On the host everything runs in float32 at least, on a device as it is stored.
    stored = shapes.stored
    size = stored if on_device else max(stored, FLOAT32)
    tokens = min(work.tokens, shapes.longest or work.tokens)
    batch = min(work.windows, work.batch_size) * tokens

    block = max(shapes.blocks) * size // stored
    around = shapes.around * size // stored
    hidden = inputs = gram = forward = 0
    if work.statistics != "none":
        hidden = work.streams * work.windows * tokens * hidden_size * size
        forward = batch * forward_numbers(shapes) * size
        if work.compares and not on_device:
            # Experts get what their router gets.
            inputs = work.windows * tokens * sum(input_widths(shapes.of_all_tokens)) * size
            # Holes that a batch's activations leave between them come on top.
            inputs = inputs + forward if hidden + inputs <= work.hidden_budget else 0
        gram = sum(width**2 for width in input_widths(layers)) * work.precision
        if work.statistics == "diagonal":
            gram = sum(width for _, (_, width) in layers) * work.precision
        gram *= work.streams
        if size != work.precision:
            forward += min(batch, _TOKENS_PER_SLICE) * widest * work.precision
    solve = max(_solve(*shape, stored, work) for _, shape in layers)
    pruning = max(work.streams, 1 + work.tries) * block + inputs + gram + max(forward, solve)
    if work.trains:  # statistics and twin are gone; what goes forward is kept for the way back
        weights = max(shapes.blocks) // stored * FLOAT32
        pruning = max(pruning, block + _TRAINED * weights + 2 * forward)
    ahead, behind = (block, max(shapes.blocks)) if work.overlap else (0, 0)
    pruning += ahead
    kept = hidden if hidden <= work.hidden_budget else work.streams * batch * hidden_size * size
    if on_device:
        room = kept + max(around, block + behind)
        host, device = PROGRAM_WITH_CUDA + with_slack(room), pruning + hidden
    else:
        host, device = PROGRAM + with_slack(kept + max(around, pruning + behind)), 0
    parts = (block, around, gram, kept, inputs, forward, solve, ahead + behind)
    return MemoryPlan(host, with_slack(device), *parts)


def forward_numbers(shapes: Shapes) -> int:
    """Numbers that a token takes while it goes through a block."""
    hidden, widest = shapes.hidden, shapes.widest
    # An expert's inputs, both its inner layers and its outputs, for every token that it gets.
    routed = shapes.experts_per_token * (2 * hidden + 3 * widest)
    return 6 * hidden + 3 * widest + routed


def with_slack(size: int) -> int:
    """The size with what the allocator and the libraries take besides."""
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


def input_widths(layers: Iterable[tuple[str, tuple[int, int]]]) -> list[int]:
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
