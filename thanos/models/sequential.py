"""Prune a model block by block, each block calibrated on the outputs of the pruned ones before."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thanos.accelerator import is_accelerator
from thanos.errors import UserError
from thanos.pruning import Pattern

from .block import BlockPruning, Order
from .blocks import DecoderBlocks, check_layers, linear_layers
from .causality import CausalProbe
from .context import longest_window
from .dense import CalledWronglyError, refuse
from .dense_twin import DenseTwin
from .given_masks import zeros_of
from .heap import release_freed
from .layer import LayerRecord, PruneLayer, share_of_zeros
from .linear import LinearLayer
from .parts import part
from .progress import report_progress
from .reconstruction import Reconstruction, check, reconstruct
from .rehearsal import rehearse
from .replay import record
from .source import BlocksInMemory, BlockSource, PrunedBlocks
from .units import Wiring

logger = logging.getLogger(__name__)

Statistics = Literal["none", "diagonal", "gram"]


@torch.no_grad()
def prune_model(
    model: PreTrainedModel | PrunedBlocks,
    windows: Tensor | None,
    prune_layer: PruneLayer,
    *,
    statistics: Statistics,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    statistics_dtype: torch.dtype = torch.float32,
    skip: Collection[str] = (),
    data_free: PruneLayer | None = None,
    order: Order = "block",
    correction: bool = False,
    masks: BlockSource | None = None,
    patterns: Mapping[str, Pattern] | None = None,
    units: bool = False,
    permutation: bool = False,
    reconstruction: Reconstruction | None = None,
    done: Sequence[Sequence[LayerRecord]] = (),
    hidden: list[Tensor] | None = None,
    dense_hidden: list[Tensor] | None = None,
    hidden_budget: int = 0,
) -> list[LayerRecord]:
    """Prune every linear layer inside the decoder blocks, in place; return a record of each.

    One block at a time lies on `device`, with a correction twice; the hidden states between blocks
    lie on the host, or where `hidden` puts them.

    Args:
        model: a loaded model, or another source of its blocks.
        windows: (n, T) token ids to calibrate on; not used if `statistics` is "none" and no block
            is reconstructed.
        prune_layer: (weight, statistics of its inputs or None) -> pruned weight.
        statistics: what `prune_layer` needs; with "none" the model does not run for it.
        batch_size: windows per forward pass.
        device: where blocks run and are pruned.
        statistics_dtype: dtype in which inputs are accumulated, whatever the model's.
        skip: names or patterns of layers to leave dense, see `linear_layers`.
        data_free: prunes, without statistics, experts that saw fewer tokens than they have
            columns; without it such an expert is an error.
        order: whose inputs a layer is calibrated on: those of its block as it was dense
            ("block"), or as the layers before it in the block leave it ("sublayer").
        correction: let the statistics hold what the layers get in the dense model.
        masks: the same model pruned otherwise; what is zero there is removed.
        patterns: of single layers, by name; `prune_layer` is told.
        units: prune only the layers that read heads or neurons, by whole ones, and zero the rows
            of others that nothing else reads; `prune_layer` is told how many columns go together.
        permutation: let input channels change places where no other block sees it; `prune_layer`
            is told which can.
        reconstruction: how every pruned block is trained to give the dense model's outputs, on
            the same windows, a batch at a time.
        done: records of the first blocks, which the source hands out pruned: they only run again,
            to give the next block its inputs, bit for bit what they were.
        hidden: the empty list to keep hidden states in; see `hidden_states`.
        dense_hidden: another one, for those of the dense model.
        hidden_budget: bytes of hidden states in memory; what those between blocks leave of it is
            for what a block's layers get in the dense model, see `DenseTwin`.

    Raises:
        UserError: the model or a layer cannot be pruned; the message names the layer.
    """
    source = BlocksInMemory(model) if isinstance(model, PreTrainedModel) else model
    check_layers(source.blocks, skip)
    count, done = len(source.blocks), tuple(done)
    wiring = Wiring(source.model, source.blocks, device) if units or permutation else None
    recording = dense = None
    rehearsed: set[int] = set()
    room = 0
    if (statistics != "none" or reconstruction is not None) and len(done) < count:
        with part("read"):
            around = source.model
        windows = _checked_windows(around, windows)
        with part("forward"):
            probe = CausalProbe(around, source.blocks, windows)
            recording = record(around, source.blocks, windows, batch_size, hidden)
        rehearsed = rehearse(recording, source.blocks, skip)
        if reconstruction is not None:
            check(reconstruction, len(recording.hidden), device)
        if correction or reconstruction:
            dense = recording.again(dense_hidden)
            if not is_accelerator(torch.device(device)):  # which would sooner run than wait
                room = hidden_budget - 2 * sum(states.nbytes for states in dense.hidden)
    told = {name: {"pattern": pattern} for name, pattern in (patterns or {}).items()}
    records: list[LayerRecord] = []
    moving = False
    with report_progress(len(done), count) as progress:
        pruning = BlockPruning(
            prune_layer=prune_layer,
            data_free=data_free,
            gram=statistics == "gram",
            dtype=statistics_dtype,
            device=device,
            order=order,
            told=progress.layer,
            rehearsed=rehearsed,
        )
        for index in range(count):
            old = index < len(done)
            if old and recording is None and wiring is None:
                records += done[index]
                continue
            name = source.blocks.name_of(index)
            with _advice(source.blocks, index, skip, device, batch_size):
                twin = None
                with part("read"):
                    if dense is not None and old:
                        unpruned = source.take_dense(index, device)
                        twin = DenseTwin(index, name, unpruned, dense, device, room)
                        del unpruned
                    block = source.take(index, device)
                    if dense is not None and not old:
                        twin = DenseTwin(index, name, block, dense, device, room)
                if index == 0 and recording is not None:
                    with part("forward"):
                        probe.check(block, device)
                layers = {} if old else linear_layers(block, name, skip)
                given: dict[str, dict[str, Any]] = {n: dict(told.get(n, {})) for n in layers}
                if masks is not None and not old:
                    with part("read"):
                        zeros = zeros_of(masks, index, skip, device)
                    for layer_name, mask in zeros.items():
                        given[layer_name]["given_mask"] = mask
                compared = twin if correction else None
                states = recording if statistics != "none" else None
                if wiring is None or not units:
                    free = wiring.channels(index, block, layers) if wiring and layers else {}
                    moving = moving or bool(free)
                    new = pruning.prune(index, layers, block, states, compared, given, free)
                else:
                    read = wiring.units(index, block, skip) if layers else {}
                    given = {
                        n: {**given[n], "unit": its_units.width} for n, its_units in read.items()
                    }
                    some = {n: layers[n] for n in read}
                    new = pruning.prune(index, some, block, states, compared, given, {})
                    new = wiring.with_rows(index, block, layers, read, new)
                last = index + 1 == count
                if wiring is not None and not last:
                    wiring.advance(index, block)
                how = reconstruction if layers else None
                if twin is not None and (how or not last):
                    with part("forward"):
                        twin.advance()
                del twin, compared
                if how and recording is not None and dense is not None:
                    targets = dense.hidden
                    with part("solve"):
                        found = reconstruct(index, layers, block, recording, targets, how, device)
                    new = [_trained(record, layers[record.name], found) for record in new]
                if recording is not None and not last:
                    with part("forward"):
                        recording.advance(index, block, device)
            with part("write"):
                source.give_back(index, block, done[index] if old else new)
            release_freed()
            progress.block(index)
            records += done[index] if old else new
    if permutation and not moving and len(done) < count:
        logger.warning("no layer has input channels that can change places; all stay in order")
    return records


def _trained(record: LayerRecord, layer: LinearLayer, found: dict[str, Any]) -> LayerRecord:
    """A layer's record after its block was reconstructed."""
    details = {**record.details, **found}
    return replace(record, sparsity=share_of_zeros(layer.weight), details=details)


def _checked_windows(model: PreTrainedModel, windows: Tensor | None) -> Tensor:
    if windows is None or windows.dim() != 2 or windows.numel() == 0:
        raise UserError("calibration needs at least one window of tokens")
    limit = longest_window(model.config.get_text_config(decoder=True))
    if limit is not None and windows.shape[1] > limit:
        raise UserError(
            f"calibration windows of {windows.shape[1]} tokens are longer than the model's "
            f"context of {limit}"
        )
    return windows


@contextmanager
def _advice(
    blocks: DecoderBlocks,
    index: int,
    skip: Collection[str],
    device: torch.device | str,
    batch_size: int,
) -> Iterator[None]:
    """Say what to change when a block cannot be pruned."""
    try:
        yield
    except CalledWronglyError as error:  # in a block that could not be rehearsed
        refuse(error.faults, blocks.names, skip, everywhere=True)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{blocks.name_of(index)}: out of memory on {device}; lower the batch size (now "
            f"{batch_size}) or use another device"
        ) from error
