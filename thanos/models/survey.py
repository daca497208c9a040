"""Look at every block of the dense model with the statistics of its inputs, and change nothing."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from thanos.pruning import InputStatistics

from .activations import gather_statistics
from .blocks import linear_layers
from .heap import release_freed
from .linear import Layers
from .parts import part
from .replay import Recording, record
from .source import BlockSource

Outputs = Callable[[], Iterator[Tensor]]
Measure = Callable[[Layers, Mapping[str, InputStatistics], Outputs], dict[str, float]]


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
        measure: a block's layers, the statistics of their inputs and what gives the block's
            outputs (B, T, d), batch by batch -> values by name.
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
            outputs = partial(_outputs, recording, index, block, device)
            with part("solve"):
                found |= measure(layers, seen, outputs)
            del seen, outputs
        with part("forward"):
            recording.advance(index, block, device)
        source.give_back(index, block, ())
        release_freed()
    return found


def _outputs(
    recording: Recording, index: int, block: nn.Module, device: torch.device | str
) -> Iterator[Tensor]:
    for run in recording.passes(index, block, device):
        with part("forward"):
            made = run()
        yield made


def error_of(
    layers: Layers, prune: Callable[[], object], outputs: Outputs, dense: Sequence[Tensor]
) -> float:
    """What pruning does to a block's outputs: the mean over tokens of ‖Δh‖²/‖h‖².

    Args:
        layers: that `prune` changes; they are as before in the end.
        prune: prunes them.
        outputs: of their block.
        dense: what `outputs` gives before.
    """
    before = {name: layer.stored.clone() for name, layer in layers.items()}
    try:
        prune()
        errors = [_relative(now, states) for now, states in zip(outputs(), dense, strict=True)]
    finally:
        for name, layer in layers.items():
            layer.stored.copy_(before[name])
    return float(torch.cat(errors).mean())


def _relative(states: Tensor, dense: Tensor) -> Tensor:
    """‖Δh‖²/‖h‖² of every token, (B·T,); of a token without any state 0 or 1."""
    states, dense = states.float(), dense.float()
    lost, all_of_it = (x.square().sum(-1).flatten() for x in (states - dense, dense))
    return torch.where(all_of_it > 0, lost / all_of_it, (lost > 0).float())
