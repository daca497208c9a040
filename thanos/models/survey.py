"""Look at every layer of the dense model with the statistics of its inputs, and change nothing."""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from thanos.pruning import InputStatistics

from .activations import gather_statistics
from .blocks import linear_layers
from .heap import release_freed
from .linear import Layers
from .parts import part
from .replay import record
from .source import BlockSource

Measure = Callable[[Layers, Mapping[str, InputStatistics]], dict[str, float]]


@torch.no_grad()
def survey(
    source: BlockSource,
    windows: Tensor,
    measure: Measure,
    *,
    gram: bool,
    batch_size: int,
    device: torch.device | str,
    dtype: torch.dtype,
    skip: Collection[str] = (),
    hidden: list[Tensor] | None = None,
) -> dict[str, float]:
    """What `measure` finds in each block of the model as it is stored, all of it together.

    Args:
        source: of dense blocks; it must keep nothing of them.
        windows: (n, T) token ids.
        measure: a block's layers and the statistics of their inputs -> values by name.
        gram: whether the statistics hold the Gram matrix.
        batch_size: windows per forward pass.
        device: where blocks run.
        dtype: of the statistics.
        skip: layers to leave out, see `linear_layers`.
        hidden: the empty list to keep hidden states in.
    """
    recording = record(source.model, source.blocks, windows, batch_size, hidden)
    found: dict[str, float] = {}
    for index in range(len(source.blocks)):
        with part("read"):
            block = source.take(index, device)
        layers = linear_layers(block, source.blocks.name_of(index), skip)
        if layers:
            passes = recording.passes(index, block, device)
            with part("forward"):
                seen = gather_statistics(layers, passes, gram=gram, dtype=dtype, device=device)
            with part("solve"):
                found |= measure(layers, seen)
            del seen
        with part("forward"):
            recording.advance(index, block, device)
        source.give_back(index, block, ())
        release_freed()
    return found
