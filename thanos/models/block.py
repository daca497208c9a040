"""Prune the linear layers of one decoder block, calibrated on what they are given there."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .activations import DenseTwin, Layers, gather_statistics, input_groups
from .channels import Channels
from .heap import release_freed
from .layer import LayerRecord, PruneLayer, prune_linear_layer
from .parts import part
from .replay import Recording

Order = Literal["block", "sublayer"]


@dataclass(frozen=True)
class Streams:
    """What the blocks are run on, from one to the next.

    Attributes:
        pruned: hidden states of the model pruned so far.
        dense: those of the dense model for the same tokens, if they are wanted.
    """

    pruned: Recording
    dense: Recording | None = None


@dataclass(frozen=True)
class BlockPruning:
    """How the layers of a block are pruned; see `prune_model` for the attributes."""

    prune_layer: PruneLayer
    data_free: PruneLayer | None
    gram: bool
    dtype: torch.dtype
    device: torch.device | str
    order: Order
    told: Callable[[LayerRecord], None]  # of every layer that is done
    rehearsed: Collection[int]  # blocks whose layers are known to be called once

    def prune(
        self,
        index: int,
        layers: Layers,
        block: nn.Module,
        streams: Streams | None,
        twin: tuple[nn.Module, Layers] | None,
        given: Mapping[str, Mapping[str, Any]],
        channels: Mapping[str, Channels],
    ) -> list[LayerRecord]:
        """Prune the layers of block `index` in place and return their records, in their order.

        Args:
            index: of the block.
            layers: of the block, by name.
            block: it.
            streams: hidden states before it; None if nothing is calibrated.
            twin: the block as it is in the dense model, and its layers.
            given: what `prune_layer` is told of single layers, by their names.
            channels: of the layers whose input channels can change places.
        """
        records: dict[str, LayerRecord] = {}
        for group in self._groups(index, layers, block, streams):
            inputs = {}
            if streams is not None and group:
                with part("forward"):
                    inputs = gather_statistics(
                        group,
                        streams.pruned.passes(index, block, self.device),
                        gram=self.gram,
                        dtype=self.dtype,
                        device=self.device,
                        twin=self._dense_inputs(index, streams, twin),
                        one_group=self.order == "sublayer",
                        rehearsed=index in self.rehearsed,
                    )
            for name, layer in group.items():
                release_freed()
                # Popped, so that a Gram matrix is freed with the last layer that needs it.
                seen = inputs.pop(name, None)
                moving = (channels[name], layers) if name in channels else None
                with part("solve"):
                    records[name] = prune_linear_layer(
                        *(index, layer, seen, self.prune_layer, self.data_free),
                        given.get(name),
                        moving,
                    )
                del seen
                self.told(records[name])
        return [records[name] for name in layers]

    def _groups(
        self, index: int, layers: Layers, block: nn.Module, streams: Streams | None
    ) -> Iterator[Layers]:
        """The layers that are calibrated together: all, or those that share their input."""
        if streams is None or self.order == "block" or not layers:
            yield layers
        else:
            run = next(streams.pruned.passes(index, block, self.device))
            with part("forward"):
                groups = input_groups(layers, run, rehearsed=index in self.rehearsed)
            yield from groups

    def _dense_inputs(
        self, index: int, streams: Streams, twin: tuple[nn.Module, Layers] | None
    ) -> DenseTwin | None:
        if streams.dense is None or twin is None:
            return None
        block, layers = twin
        return DenseTwin(layers, streams.dense.passes(index, block, self.device))
