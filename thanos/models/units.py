"""Attention heads and MLP neurons, as columns of the layers that read them and rows that make them.

Which they are is found by running a block, see `unread_rows`; no architecture is known by name.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thanos.errors import UserError

from .blocks import DecoderBlocks, linear_layers
from .channels import Channels, channels_of, expert_channels, holds
from .dense import refuse
from .experts import ExpertMatrix, has_experts
from .layer import LayerRecord, share_of_zeros
from .linear import Layers
from .replay import Recording, record_probe
from .unread_rows import Run, unread_rows


@dataclass(frozen=True)
class Units:
    """Of a layer the input columns that go together: a neuron's, or those of a group of heads.

    Attributes:
        width: consecutive columns of one unit.
        rows: by the layer that makes them, rows that nothing but one unit reads.
    """

    width: int
    rows: Mapping[str, int]

    def removed(self, weight: Tensor) -> Tensor:
        """The columns (b,) bool of the units that are zero in a weight (c, b)."""
        return (weight == 0).all(0).view(-1, self.width).all(1).repeat_interleave(self.width)


class Wiring:
    """Which layers of a model's blocks read heads or neurons, and what makes those.

    Args:
        model: able to run up to its first block.
        blocks: of the model.
        device: where blocks will be run.
    """

    def __init__(
        self, model: PreTrainedModel, blocks: DecoderBlocks, device: torch.device | str
    ) -> None:
        self._kind = type(model).__name__
        self._blocks, self._device = blocks, device
        self._recording: Recording = record_probe(model, blocks)
        # By kind of block, of its layers by their names in it; and of which units are unknown.
        self._known: dict[tuple[object, ...], tuple[dict[str, Units], dict[str, str]]] = {}
        self._channels: dict[tuple[object, ...], dict[str, Channels]] = {}

    def advance(self, index: int, block: nn.Module) -> None:
        """Go on behind block `index`, so that the next one can run."""
        self._recording.advance(index, block, self._device)

    def units(self, index: int, block: nn.Module, skip: Collection[str]) -> dict[str, Units]:
        """Of the layers of block `index` that read heads or neurons, by their full names.

        Raises:
            UserError: the model is a mixture of experts; the heads or neurons of a layer cannot be
                told apart, and `skip` does not name it.
        """
        if any(has_experts(module) for module in self._blocks.modules.modules()):
            raise UserError(
                f"{self._kind} is a mixture of experts, whose neurons cannot be pruned as a whole "
                "yet; use structured"
            )
        name = self._blocks.name_of(index)
        found, faults = self._found(index, block)
        chosen = linear_layers(block, name, skip)
        named = {f"{name}.{own}": fault for own, fault in faults.items()}
        refuse(
            {full: fault for full, fault in named.items() if full in chosen},
            self._blocks.names,
            skip,
            everywhere=True,
        )
        return {
            f"{name}.{own}": Units(u.width, {f"{name}.{made}": n for made, n in u.rows.items()})
            for own, u in found.items()
            if f"{name}.{own}" in chosen
        }

    def channels(self, index: int, block: nn.Module, layers: Layers) -> dict[str, Channels]:
        """The input channels that can change places, of layers of block `index`, by full names.

        Of the layers given, and made by these alone: a layer that is left as it is stays so.
        """
        name, every = self._blocks.name_of(index), self._layers(index, block)
        kind, outcome = self._kind_of(index, block), self._recording.outcome
        if kind not in self._channels:
            run, own = self._run(index, block), self._own(index, block)
            units = self._found(index, block)[0]
            found = {reader: channels_of(run, own, reader, u.width) for reader, u in units.items()}
            self._channels[kind] = {reader: c for reader, c in found.items() if c is not None}
        moving = {f"{name}.{own}": c.of_block(name) for own, c in self._channels[kind].items()}
        tried = partial(outcome, index, block, self._device)
        moving = {reader: c for reader, c in moving.items() if holds(tried, every, reader, c)}
        moving |= expert_channels(layers)
        return {reader: c for reader, c in moving.items() if {reader, *c.rows} <= layers.keys()}

    def with_rows(
        self,
        index: int,
        block: nn.Module,
        layers: Layers,
        units: Mapping[str, Units],
        pruned: Sequence[LayerRecord],
    ) -> list[LayerRecord]:
        """Zero the rows that only removed units read, in place; the records of all layers.

        Args:
            index: of the block.
            block: with the columns of `units` pruned.
            layers: of the block that may lose something, by full name, in the records' order.
            units: of the layers that read them.
            pruned: records of those.

        Raises:
            UserError: what is found to be read by nobody is not what should be.
        """
        started, every = time.perf_counter(), self._layers(index, block)
        removed = {name: own.removed(every[name].weight) for name, own in units.items()}
        unread = unread_rows(self._run(index, block), every, removed)
        records = {record.name: record for record in pruned}
        for name, layer in layers.items():
            if name in records:
                continue
            gone = unread[name]
            expected = sum(
                own.rows.get(name, 0) * int(removed[reader].sum()) // own.width
                for reader, own in units.items()
            )
            if int(gone.sum()) != expected:
                raise UserError(
                    f"{name}: {int(gone.sum())} of its rows seem to be read by nobody, where "
                    f"{expected} should be; use model.skip to leave it dense, or structured"
                )
            layer.write(layer.weight.masked_fill(gone[:, None], 0))
            records[name] = LayerRecord(
                block=index,
                name=name,
                shape=layer.shape,
                sparsity=share_of_zeros(layer.weight),
                relative_error=None,  # of what is still read nothing changes
                seconds=time.perf_counter() - started,
                damping=None,
                details={"rows_removed": expected},
            )
        return [records[name] for name in layers]

    def _found(self, index: int, block: nn.Module) -> tuple[dict[str, Units], dict[str, str]]:
        """The units of the layers that read any, by names in the block; of others what is wrong."""
        kind = self._kind_of(index, block)
        if kind in self._known:
            return self._known[kind]
        found: dict[str, Units] = {}
        faults: dict[str, str] = {}
        run, layers = self._run(index, block), self._own(index, block)
        for own, layer in layers.items():
            readers = {own: torch.ones(layer.shape[1], dtype=torch.bool)}
            if not any(unread.all() for unread in unread_rows(run, layers, readers).values()):
                continue  # it reads the hidden states
            if (units := _units_of(run, layers, own)) is not None:
                found[own] = units
            else:
                faults[own] = (
                    " reads heads or neurons that cannot be told apart, for all of them are "
                    "normalised together"
                )
        return self._known.setdefault(kind, (found, faults))

    def _kind_of(self, index: int, block: nn.Module) -> tuple[object, ...]:
        shapes = ((own, layer.shape) for own, layer in self._own(index, block).items())
        return type(block), *shapes

    def _own(self, index: int, block: nn.Module) -> Layers:
        """The block's layers by their names in it."""
        prefix = f"{self._blocks.name_of(index)}."
        every = self._layers(index, block)
        return {name.removeprefix(prefix): layer for name, layer in every.items()}

    def _layers(self, index: int, block: nn.Module) -> Layers:
        """The block's layers but those of experts, which see some tokens only."""
        every = linear_layers(block, self._blocks.name_of(index))
        return {name: a for name, a in every.items() if not isinstance(a, ExpertMatrix)}

    def _run(self, index: int, block: nn.Module) -> Run:
        return next(self._recording.passes(index, block, self._device))


def _units_of(run: Run, layers: Layers, reader: str) -> Units | None:
    """The smallest units of a layer's columns; None if all of them hang together.

    The first w columns are a unit if so many rows go with all but the last w that each unit has as
    many as the first one; of neurons no row is left in the end.
    """
    b = layers[reader].shape[1]

    def lost(columns: int) -> dict[str, int]:
        removed = {reader: torch.arange(b) < columns}
        counts = {n: int(rows.sum()) for n, rows in unread_rows(run, layers, removed).items()}
        return {name: count for name, count in counts.items() if count}

    everything = sum(lost(b).values())
    for width in (w for w in range(1, b) if b % w == 0):
        rows = lost(width)
        count = sum(rows.values())
        if count and sum(lost(b - width).values()) == count * (b - width) // width:
            if width == 1 and count * b != everything:
                return None  # what lies between two single columns is no neuron
            return Units(width, rows)
    return None
