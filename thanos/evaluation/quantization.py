"""Weight-only quantisation of a model's linear layers, by torch's own quantiser.

Round to nearest, symmetric: int8 with a scale per output row, int4 with one per group of inputs. A
symmetric grid holds zero, so pruned weights stay exactly zero. What is evaluated are the quantised
weights, widened again to the precision of the activations: the numbers of any weight-only kernel,
without one. Embeddings, head, routers and what `model.skip` names stay as they are, as
in pruning.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..models import BlocksInMemory, BlockSource, LayerRecord, linear_layers

LARGEST_GROUP = 128  # inputs that share a scale in int4


class QuantizedBlocks:
    """A `BlockSource` that hands out another source's blocks with quantised weights.

    Args:
        source: of the blocks.
        kind: `none`, `int8` or `int4`.
        skip: layers to leave as they are, see `linear_layers`.
    """

    def __init__(self, source: BlockSource, kind: str, skip: Collection[str] = ()) -> None:
        self._source = source
        self._kind = kind
        self._skip = skip
        self.blocks = source.blocks

    @property
    def model(self) -> PreTrainedModel:
        """The model around the blocks, as the other source gives it."""
        return self._source.model

    def take(self, index: int, device: torch.device | str) -> nn.Module:
        """Return block `index` on `device`, quantised there."""
        block = self._source.take(index, device)
        if self._kind != "none":
            for layer in linear_layers(block, self.blocks.name_of(index), self._skip).values():
                layer.write(quantized(layer.weight, self._kind))
        return block

    def give_back(self, index: int, block: nn.Module, records: Sequence[LayerRecord]) -> None:
        """Hand the block back to the other source."""
        self._source.give_back(index, block, records)


def quantize_model(model: PreTrainedModel, kind: str, skip: Collection[str] = ()) -> None:
    """Quantise, in place, the linear layers in the blocks of a model that is loaded as a whole."""
    source = QuantizedBlocks(BlocksInMemory(model), kind, skip)
    for index in range(len(source.blocks)):
        source.take(index, model.device)


def quantized(weight: Tensor, kind: str) -> Tensor:
    """The nearest weight on the grid of `kind`, in the precision of `weight`.

    Args:
        weight: (out_features, in_features).
        kind: `int8` or `int4`.
    """
    width = weight.shape[1]
    largest, group = {"int8": (127, width), "int4": (7, group_size(width))}[kind]
    rows = weight.float().reshape(-1, group)
    # A group of zeros has any scale.
    scale = (rows.abs().amax(dim=1) / largest).clamp(min=torch.finfo(torch.float32).tiny)
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    nearest = torch.fake_quantize_per_channel_affine(rows, scale, zero_point, 0, -largest, largest)
    return nearest.reshape(weight.shape).to(weight.dtype)


def group_size(width: int) -> int:
    """Inputs per scale in int4: the largest power of two that divides the width, at most 128."""
    return min(width & -width, LARGEST_GROUP)
