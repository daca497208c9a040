"""Run a model block by block: its hidden states, the logits that they give, its own forward."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from .causality import CausalProbe
from .context import longest_window
from .replay import finish, record_batches
from .source import BlockSource

# Logits of so many positions at a time: 256 x 128k vocabulary in float32 is 128 MiB.
POSITIONS_PER_SLICE = 256
# Those of a batch are computed together as long as they take no more.
LOGITS_AT_ONCE = 256 * 2**20  # bytes


@torch.no_grad()
def states_by_blocks(
    source: BlockSource,
    batches: Iterable[Tensor],
    device: torch.device | str,
    hidden: list[Tensor] | None = None,
) -> list[Tensor]:
    """Return what the last block makes (B, T, d) of each batch of token ids (B, T).

    Every block is taken once, for all batches; in memory are one block and all hidden states.

    Args:
        source: of the blocks; it keeps nothing of them.
        batches: of one forward pass each; their shapes may differ.
        device: where the blocks run.
        hidden: the empty list to keep hidden states in; see `hidden_states`.

    Raises:
        UserError: the model sees the tokens that it is to predict.
    """
    blocks, batches = source.blocks, list(batches)
    probes = [CausalProbe(source.model, blocks, batch) for batch in batches[:1]]
    recording = record_batches(source.model, blocks, batches, hidden)
    for index in tqdm(range(len(blocks)), unit="block", leave=False, disable=None):
        block = source.take(index, device)
        while probes:
            probes.pop().check(block, device)
        recording.advance(index, block, device)
        source.give_back(index, block, ())
    return recording.hidden


@torch.no_grad()
def logits_by_blocks(
    source: BlockSource,
    windows: Tensor,
    batch_size: int,
    device: torch.device | str,
    hidden: list[Tensor] | None = None,
) -> Iterator[Iterable[Tensor]]:
    """Yield the logits of one window after the other, each in slices (t, V) of its positions.

    Bit for bit the whole model's, where those of a batch fit into `LOGITS_AT_ONCE`. Otherwise the
    head sees 256 positions at a time, and a library may round its last bits otherwise.

    Args:
        source: of the blocks; it keeps nothing of them.
        windows: (n, T) token ids.
        batch_size: windows per forward pass.
        device: where the blocks run.
        hidden: the empty list to keep hidden states in; see `hidden_states`.
    """
    batches = windows.split(batch_size)
    hidden = states_by_blocks(source, batches, device, hidden)
    yield from logits_of_batches(source, batches, hidden)


@torch.no_grad()
def logits_of_batches(
    source: BlockSource, batches: Iterable[Tensor], hidden: Iterable[Tensor]
) -> Iterator[Iterable[Tensor]]:
    """Yield the logits of windows as `logits_by_blocks` does.

    Args:
        source: of the blocks that made the states.
        batches: (B, T) token ids, of one forward pass each.
        hidden: (B, T, d) of each, of `states_by_blocks`.
    """
    model = source.model
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    for batch, states in zip(batches, hidden, strict=True):
        if batch.numel() * vocabulary * states.element_size() <= LOGITS_AT_ONCE:
            for row in finish(model, source.blocks, batch, states):
                yield row.split(POSITIONS_PER_SLICE)
        else:
            for ids, their in zip(batch, states, strict=True):
                yield logits_of_positions(source, ids, their)


@torch.no_grad()
def logits_of_positions(source: BlockSource, tokens: Tensor, states: Tensor) -> Iterator[Tensor]:
    """Yield the logits of some positions, a slice (t, V) of at most 256 of them at a time.

    What follows the blocks, a norm and the head, looks at every position by itself, so that it
    does not matter where in which text they stood. What comes before them runs as well, unused: a
    slice must be no longer than the model can look.

    Args:
        source: of the blocks that made the states.
        tokens: (n,) ids at the positions.
        states: (n, d), of `states_by_blocks`.
    """
    model = source.model
    longest = longest_window(model.config.get_text_config(decoder=True)) or POSITIONS_PER_SLICE
    size = min(longest, POSITIONS_PER_SLICE)
    ids, parts = tokens.split(size), states.split(size)
    for some, their in zip(ids, parts, strict=True):
        yield finish(model, source.blocks, some[None], their[None])[0]


@contextmanager
def running_by_blocks(source: BlockSource, device: torch.device | str) -> Iterator[PreTrainedModel]:
    """The model, able to run as a whole, cache and all: each block is there while it runs.

    Every pass takes every block anew.
    """
    blocks = source.blocks

    def lazily(index: int, block: nn.Module) -> Callable[..., Any]:
        own = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            source.take(index, device)
            try:
                return own(*args, **kwargs)
            finally:
                source.give_back(index, block, ())
                if index == len(blocks) - 1:
                    _ = source.model  # what follows the blocks made way for them

        return forward

    for index, block in enumerate(blocks.modules):
        block.forward = lazily(index, block)
    try:
        yield source.model
    finally:
        for block in blocks.modules:
            del block.forward
