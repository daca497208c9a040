"""Zeros of a pruned model: kept while it is trained, and counted one by one afterwards."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thanos.models import BlockSource, LinearLayer, find_blocks, linear_layers
from thanos.models.experts import parameter_of


def pruned_layers(model: PreTrainedModel, skip: Collection[str]) -> dict[str, LinearLayer]:
    """The linear layers of a model's blocks by full name, but those that were left dense."""
    blocks = find_blocks(model)
    return {
        name: layer
        for block, block_name in zip(blocks.modules, blocks.names, strict=True)
        for name, layer in linear_layers(block, block_name, skip).items()
    }


class Zeros:
    """The zeros of a loaded model's pruned layers, which no step of an optimizer changes.

    Args:
        model: on the device that it is trained on.
        skip: layers that pruning left dense on purpose.
    """

    def __init__(self, model: PreTrainedModel, skip: Collection[str]) -> None:
        parameters = dict(model.named_parameters())
        names = (
            own if (own := f"{name}.weight") in parameters else parameter_of(name)
            for name in pruned_layers(model, skip)
        )
        self._kept: list[tuple[Tensor, Tensor]] = []  # parameter, where it is not zero
        for name in dict.fromkeys(names):
            parameter = parameters[name]
            kept = parameter.detach() != 0
            self._kept.append((parameter, kept))
            # Before gradients are clipped: what is removed has no part in their norm.
            parameter.register_post_accumulate_grad_hook(_masking(kept))

    @torch.no_grad()
    def restore(self) -> None:
        """Set to zero what was removed."""
        for parameter, kept in self._kept:
            parameter.mul_(kept)


def _masking(kept: Tensor) -> Callable[[Tensor], None]:
    def mask(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(kept)

    return mask


@dataclass(frozen=True)
class LayerZeros:
    """One layer: its shape, its zeros before and after, and its groups of m that keep more than n.

    The last are counted for n:m patterns only: rows that pruning left dense have them.
    """

    layer: str
    shape: tuple[int, int]
    before: int
    after: int
    overfull_groups: int | None


def compare_zeros(
    before: BlockSource, after: BlockSource, skip: Collection[str], group: tuple[int, int] | None
) -> list[LayerZeros]:
    """Compare a model with what was made of it, one block at a time.

    Args:
        before: as it was pruned.
        after: of the same shapes.
        skip: layers that pruning left dense on purpose.
        group: n and m of an n:m pattern.

    Raises:
        RuntimeError: a weight that was zero is not zero any more.
    """
    found = []
    for index in range(len(before.blocks)):
        name = before.blocks.name_of(index)
        old, new = before.take(index, "cpu"), after.take(index, "cpu")
        layers = linear_layers(new, name, skip)
        for own, layer in linear_layers(old, name, skip).items():
            found.append(_compared(layer, layers[own], group))
        before.give_back(index, old, ())
        after.give_back(index, new, ())
    return found


def summary(layers: Sequence[LayerZeros]) -> dict[str, Any]:
    """What `recovery.json` says of all layers: the sparsity, and zeros to the last one."""
    weights = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    before, after = sum(layer.before for layer in layers), sum(layer.after for layer in layers)
    groups = [layer.overfull_groups for layer in layers if layer.overfull_groups is not None]
    return {
        "sparsity": after / weights,
        "sparsity_before": before / weights,
        "weights_of_layers": weights,
        "zeros": after,
        "zeros_before": before,
        "overfull_groups": sum(groups) if groups else None,
    }


def _compared(old: LinearLayer, new: LinearLayer, group: tuple[int, int] | None) -> LayerZeros:
    zeros, weight = old.weight == 0, new.weight
    if filled := int((weight[zeros] != 0).sum()):
        raise RuntimeError(f"{filled} removed weights of {old.name} are not zero after recovery")
    overfull = None
    if group is not None:
        n, m = group
        overfull = int(((weight != 0).unflatten(1, (-1, m)).sum(-1) > n).sum())
    return LayerZeros(old.name, old.shape, int(zeros.sum()), int((weight == 0).sum()), overfull)
