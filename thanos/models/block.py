"""Prune the linear layers of one decoder block, calibrated on what they are given there."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .activations import gather_statistics, input_groups
from .channels import Channels
from .dense_twin import DenseTwin
from .heap import release_freed
from .layer import LayerRecord, PruneLayer, prune_linear_layer
from .linear import Layers
from .parts import part
from .replay import Recording

Order = Literal["block", "sublayer"]


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
        states: Recording | None,
        twin: DenseTwin | None,
        given: Mapping[str, Mapping[str, Any]],
        channels: Mapping[str, Channels],
    ) -> list[LayerRecord]:
        """Prune the layers of block `index` in place and return their records, in their order.

        Args:
            index: of the block.
            layers: of the block, by name.
            block: it.
            states: what it is run on; None if nothing is calibrated.
            twin: the block as it is in the dense model, for corrections.
            given: what `prune_layer` is told of single layers, by their names.
            channels: of the layers whose input channels can change places.
        """
        records: dict[str, LayerRecord] = {}
        groups = self._groups(index, layers, block, states)
        if twin is not None:
            with part("forward"):
                twin.prepare(groups)
        for group in groups:
            inputs = {}
            if states is not None and group:
                with part("forward"):
                    inputs = gather_statistics(
                        group,
                        states.passes(index, block, self.device),
                        gram=self.gram,
                        dtype=self.dtype,
                        device=self.device,
                        twin=twin,
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
        self, index: int, layers: Layers, block: nn.Module, states: Recording | None
    ) -> Sequence[Layers]:
        """The layers that are calibrated together: all, or those that share their input."""
        if states is None or self.order == "block" or not layers:
            return [layers]
        run = next(states.passes(index, block, self.device))
        with part("forward"):
            return input_groups(layers, run, rehearsed=index in self.rehearsed)
