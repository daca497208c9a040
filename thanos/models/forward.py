"""A model's logits, computed block by block."""

from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from .replay import finish, record
from .source import BlockSource


@torch.no_grad()
def logits_by_blocks(
    source: BlockSource,
    windows: Tensor,
    batch_size: int,
    device: torch.device | str,
    hidden: list[Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yield the logits (B, T, V) of each batch of windows, bit for bit the whole model's.

    Every block is taken once, for all windows; in memory are one block and all hidden states.

    Args:
        source: of the blocks; it keeps nothing of them.
        windows: (n, T) token ids.
        batch_size: windows per forward pass.
        device: where the blocks run.
        hidden: the empty list to keep hidden states in; see `hidden_states`.
    """
    blocks = source.blocks
    recording = record(source.model, blocks, windows, batch_size, hidden)
    for index in tqdm(range(len(blocks)), unit="block", leave=False, disable=None):
        block = source.take(index, device)
        recording.advance(index, block, device)
        source.give_back(index, block, ())
    model = source.model
    for batch, states in zip(windows.split(batch_size), recording.hidden, strict=True):
        yield finish(model, blocks, batch, states)
