"""Run every block without its weights, to know before the first one is pruned what will go wrong.

On the meta device an operation computes shapes only, so that this takes milliseconds per block and
no memory. What depends on values (which expert a token goes to) cannot be rehearsed: such a block
is left for the real run.
"""

from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from functools import partial

import torch
from torch import nn
from torch.func import functional_call

from .blocks import DecoderBlocks, linear_layers
from .dense import calls_fault, refuse
from .experts import ExpertMatrix
from .replay import Recording


@torch.no_grad()
def rehearse(recording: Recording, blocks: DecoderBlocks, skip: Collection[str]) -> set[int]:
    """Check that every layer to prune is called once when its block runs.

    Args:
        recording: of the model, before any of its blocks has run; it stays as it is.
        blocks: the model's; they may lie anywhere.
        skip: see `linear_layers`.

    Returns:
        The blocks that could be rehearsed.

    Raises:
        UserError: a layer is not called, or more than once; the message names all of them.
    """
    trial = Recording([recording.hidden[0].to("meta")], [recording.calls[0]])
    faults, complete = {}, set()
    for index, block in enumerate(blocks.modules):
        layers = linear_layers(block, blocks.name_of(index), skip)
        plain = {n: own for n, own in layers.items() if not isinstance(own, ExpertMatrix)}
        called: Counter[str] = Counter()
        handles = [
            layer.module.register_forward_pre_hook(partial(_count, called, name))
            for name, layer in plain.items()
        ]
        with suppress(Exception):  # depends on values; the real run will tell
            trial.advance(index, _OnMeta(block), "meta")
            complete.add(index)
        for handle in handles:
            handle.remove()
        for name in plain:
            if called[name] > 1 or (index in complete and not called[name]):
                faults[name] = calls_fault(called[name])
    refuse(faults, blocks.names, skip, everywhere=True)
    return complete


def _count(called: Counter[str], name: str, *_: object) -> None:
    called[name] += 1


class _OnMeta(nn.Module):
    """A block as if its weights were on the meta device."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._block = [block]  # in a list: no submodule

    def forward(self, *args: object, **kwargs: object) -> object:
        (block,) = self._block
        names = (*block.named_parameters(), *block.named_buffers())
        weights = {name: tensor.to("meta") for name, tensor in names}
        return functional_call(block, weights, args, kwargs, tie_weights=False)
