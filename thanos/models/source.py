"""Where the pruning pass gets its decoder blocks from and leaves the finished ones."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from .blocks import DecoderBlocks, find_blocks
from .layer import LayerRecord


class BlockSource(Protocol):
    """Hands out a model's blocks one at a time and takes the finished ones back.

    A block's own weights need to be there only between `take` and `give_back`.
    """

    blocks: DecoderBlocks

    @property
    def model(self) -> PreTrainedModel:
        """The model, able to run up to its first block; asked for while no block is taken."""

    def take(self, index: int, device: torch.device | str) -> nn.Module:
        """Return block `index` with its weights on `device`."""

    def give_back(self, index: int, block: nn.Module, records: Sequence[LayerRecord]) -> None:
        """Accept block `index`: pruned, recorded, no longer needed."""


class PrunedBlocks(BlockSource, Protocol):
    """A source whose finished blocks are pruned, and that hands out dense ones as well."""

    def take_dense(self, index: int, device: torch.device | str) -> nn.Module:
        """Return block `index` on `device` with its weights as they were before any pruning."""


class BlocksInMemory:
    """The blocks of a model that is loaded as a whole."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: PreTrainedModel = model
        self.blocks = find_blocks(model)
        self._home = model.device

    def take(self, index: int, device: torch.device | str) -> nn.Module:
        """Move block `index` to `device`."""
        return self.blocks.modules[index].to(device)

    def take_dense(self, index: int, device: torch.device | str) -> nn.Module:
        """Move block `index`, which is not pruned yet, to `device`."""
        return self.take(index, device)

    def give_back(self, index: int, block: nn.Module, records: Sequence[LayerRecord]) -> None:
        """Move the block back to where the model lies."""
        block.to(self._home)
