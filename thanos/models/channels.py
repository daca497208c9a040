"""Input channels of a layer that can change places, and the rows of other layers that make them.

Neurons of an MLP can all change places with each other, the channels of a value with those of the
same head; whatever reads the hidden states has its channels in the order of all other layers. What
makes a channel is found by running the block, see `unread_rows`; no architecture is known by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from thanos.pruning.permutation import column_order

from .experts import ExpertMatrix
from .linear import Layers, LinearLayer
from .unread_rows import Run, unread_rows
from .watching import watch


@dataclass(frozen=True)
class Channels:
    """Channels in pools, within which they can change places.

    Attributes:
        columns: (pools, k, copies) of the layer that reads them: heads that share a value read
            copies of its channels.
        rows: by the layer that makes them, (pools, k, rows of one channel).
    """

    columns: Tensor
    rows: Mapping[str, Tensor]

    def of_block(self, block: str) -> "Channels":
        """The same, where layers have the names that they have in the model."""
        return Channels(self.columns, {f"{block}.{name}": rows for name, rows in self.rows.items()})

    def follow(self, order: Tensor, layers: Layers) -> None:
        """Put the rows that make the channels in an order (pools, k), in place."""
        for name, rows in self.rows.items():
            layers[name].reorder_rows(column_order(rows, order, layers[name].shape[0]))


def channels_of(run: Run, layers: Layers, reader: str, unit: int) -> Channels | None:
    """The channels of a layer that reads units of so many columns; None if none can move.

    Columns are numbered as channels of heads of a guessed width, which share a value within a unit,
    or all of them. A guess is right if every number has rows that feed columns of this number only,
    and as many as every other.

    Args:
        run: the block, see `unread_rows`.
        layers: of the block, by name.
        reader: one of them.
        unit: a neuron's columns, 1, or those of heads that go together.
    """
    column = torch.arange(layers[reader].shape[1])
    widths = [w for w in range(unit, 1, -1) if unit % w == 0] if unit > 1 else [1]
    for shared, width in product(dict.fromkeys((unit, len(column) if unit > 1 else 1)), widths):
        number = column // shared * width + column % width
        if rows := _rows_by_number(run, layers, reader, number):
            pools = 1 if unit == 1 else len(column) // shared
            columns = number.argsort(stable=True).view(pools, -1, shared // width)
            return Channels(
                columns, {name: its.view(pools, -1, its.shape[1]) for name, its in rows.items()}
            )
    return None


def expert_channels(layers: Layers) -> dict[str, Channels]:
    """Those of the experts' down matrices, whose layout is known, by name."""
    found = {}
    for name, layer in layers.items():
        others = [name.removesuffix("down_proj") + part for part in ("gate_proj", "up_proj")]
        if isinstance(layer, ExpertMatrix) and name.endswith(".down_proj"):
            neurons = torch.arange(layer.shape[1]).view(1, -1, 1)
            found[name] = Channels(neurons, dict.fromkeys(others, neurons))
    return found


def holds(
    outcome: Callable[[], Sequence[Tensor]], layers: Layers, reader: str, channels: Channels
) -> bool:
    """Whether a block computes the same when the channels are in another order.

    It is tried, and undone: between the layers each channel may have something of its own, and
    a later block may read what makes them.

    Args:
        outcome: runs the block; all that it gives to other blocks.
        layers: of the block, by name.
        reader: of the channels.
        channels: to try.
    """
    pools, k, _ = channels.columns.shape
    generator = torch.Generator().manual_seed(0)
    order = torch.stack([torch.randperm(k, generator=generator) for _ in range(pools)])
    columns = column_order(channels.columns, order, layers[reader].shape[1])
    x, *results = _seen(outcome, layers[reader])
    with _reordered(layers, reader, channels, order):
        moved = _seen(outcome, layers[reader])
    expected = [x[..., columns.to(x.device)], *results]
    return len(moved) == len(expected) and all(map(_close, moved, expected))


def _rows_by_number(run: Run, layers: Layers, reader: str, number: Tensor) -> dict[str, Tensor]:
    """Of each layer that makes channels of the reader, (numbers, rows of one), ascending."""
    count = int(number.max()) + 1
    found = {name: torch.zeros(layer.shape[0], dtype=torch.long) for name, layer in layers.items()}
    single = {name: torch.ones(len(each), dtype=torch.bool) for name, each in found.items()}
    for bit in range((count - 1).bit_length()):
        is_set = (number >> bit) & 1 == 1
        without_ones, without_zeros = (
            unread_rows(run, layers, {reader: removed}) for removed in (is_set, ~is_set)
        )
        for name, value in found.items():
            one, zero = without_ones[name].cpu(), without_zeros[name].cpu()
            single[name] &= one ^ zero
            value |= one.long() << bit
    makers = {}
    for name, value in found.items():
        rows = single[name].nonzero().flatten()
        rows = rows[value[rows].argsort(stable=True)]
        if not len(rows):
            continue
        if (torch.bincount(value[rows], minlength=count) != len(rows) // count).any():
            return {}
        makers[name] = rows.view(count, -1)
    return makers


@contextmanager
def _reordered(layers: Layers, reader: str, channels: Channels, order: Tensor) -> Iterator[None]:
    columns = column_order(channels.columns, order, layers[reader].shape[1])
    layers[reader].reorder_columns(columns)
    channels.follow(order, layers)
    try:
        yield
    finally:
        layers[reader].reorder_columns(columns.argsort())
        channels.follow(order.argsort(1), layers)


def _seen(outcome: Callable[[], Sequence[Tensor]], layer: LinearLayer) -> list[Tensor]:
    """What the layer is given in a run, and what the block gives to others."""
    seen: list[Tensor] = []

    def keep(_: str, x: Tensor) -> None:
        seen.append(x.clone())

    with torch.no_grad(), watch({layer.name: layer}, keep, lambda _: None):
        results = outcome()
    return [*seen, *results]


def _close(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors are the same but for rounding."""
    if not x.is_floating_point():
        return torch.equal(x, y)
    # Channels that are not interchangeable are a common multiple of their size apart.
    tolerance = max(1e-4, 4 * torch.finfo(x.dtype).eps)
    return bool((x.float() - y.float()).norm() <= tolerance * y.float().norm())
