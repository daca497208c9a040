"""Masks from elsewhere: what is zero in a model that was pruned before."""

from collections.abc import Collection

import torch
from torch import Tensor

from thanos.errors import UserError
from thanos.pruning import Pattern, PruningError
from thanos.pruning.masking import TOLERATED, check_mask, pattern_of
from thanos.pruning.patterns import SemiStructured, Unstructured

from .blocks import linear_layers
from .source import BlockSource


def zeros_of(
    masks: BlockSource, index: int, skip: Collection[str], device: torch.device | str
) -> dict[str, Tensor]:
    """Where the weights of a block are zero, (c, b) by layer name."""
    block = masks.take(index, device)
    layers = linear_layers(block, masks.blocks.name_of(index), skip)
    zeros = {name: layer.weight == 0 for name, layer in layers.items()}
    masks.give_back(index, block, ())
    return zeros


def own_patterns(
    masks: BlockSource, pattern: Pattern, skip: Collection[str]
) -> dict[str, Pattern] | None:
    """The pattern of each layer, where only all of them together have the one that is named.

    So it is where sparsity was allocated over the layers. None where every layer has the pattern,
    and for structured ones, which each layer must have.

    Args:
        masks: a pruned model.
        pattern: that it was made for.
        skip: layers to leave out, see `linear_layers`.

    Raises:
        UserError: neither every layer nor all together have it; the message names the first layer.
    """
    if not isinstance(pattern, Unstructured | SemiStructured):
        return None
    found: dict[str, Pattern] = {}
    faults: dict[str, str] = {}
    removed, total, rows = 0.0, 0, 0
    for index in range(len(masks.blocks)):
        for name, mask in zeros_of(masks, index, skip, "cpu").items():
            found[name] = own = pattern_of(mask, pattern)
            removed += own.sparsity * mask.numel()
            total += mask.numel()
            rows += len(mask)
            try:
                check_mask(mask, (mask.shape[0], mask.shape[1]), pattern, 0.0)
            except PruningError as error:
                faults[name] = str(error)
    if not faults:
        return None
    slack = TOLERATED + rows / total  # as of a layer: one weight per row, by which methods round
    if abs(removed / total - pattern.sparsity) > slack:
        name, fault = next(iter(faults.items()))
        raise UserError(f"{name}: {fault} (all layers together lose {removed / total:.4f})")
    return found
