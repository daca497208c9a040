"""Prune a model block by block, each block calibrated on the outputs of the pruned ones before."""

import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from thanos.errors import UserError

from .activations import gather_statistics
from .blocks import check_layers, linear_layers
from .layer import LayerRecord, PruneLayer, prune_linear_layer
from .replay import Recording, record, run_block
from .source import BlocksInMemory, BlockSource

logger = logging.getLogger(__name__)

Statistics = Literal["none", "diagonal", "gram"]


@torch.no_grad()
def prune_model(
    model: PreTrainedModel | BlockSource,
    windows: Tensor | None,
    prune_layer: PruneLayer,
    *,
    statistics: Statistics,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    statistics_dtype: torch.dtype = torch.float32,
    on_layer: Callable[[LayerRecord], None] | None = None,
    skip: Collection[str] = (),
) -> list[LayerRecord]:
    """Prune every linear layer inside the decoder blocks, in place; return a record of each.

    One block at a time lies on `device`; the hidden states between blocks lie on the host.

    Args:
        model: a loaded model, or another source of its blocks.
        windows: (n, T) token ids to calibrate on; not used if `statistics` is "none".
        prune_layer: (weight, statistics of its inputs or None) -> pruned weight.
        statistics: what `prune_layer` needs; with "none" the model never runs.
        batch_size: windows per forward pass.
        device: where blocks run and are pruned.
        statistics_dtype: dtype in which inputs are accumulated, whatever the model's.
        on_layer: called after each layer.
        skip: names or patterns of layers to leave dense, see `linear_layers`.

    Raises:
        UserError: the model or a layer cannot be pruned; the message names the layer.
    """
    source = BlocksInMemory(model) if isinstance(model, PreTrainedModel) else model
    check_layers(source.blocks, skip)
    recording = None
    if statistics != "none":
        windows = _checked_windows(source.model, windows)
        recording = record(source.model, source.blocks, windows, batch_size)
    records: list[LayerRecord] = []
    count = len(source.blocks)
    with _report(count, on_layer) as report:
        for index in range(count):
            block = source.take(index, device)
            name = source.blocks.name_of(index)
            layers = linear_layers(block, name, skip)
            done: list[LayerRecord] = []
            with _memory_advice(name, device, batch_size):
                inputs = {}
                if recording is not None and layers:
                    inputs = gather_statistics(
                        layers,
                        _passes(block, index, recording, device),
                        gram=statistics == "gram",
                        dtype=statistics_dtype,
                        device=device,
                    )
                for layer_name, layer in layers.items():
                    # Popped, so that a Gram matrix is freed with the last layer that needs it.
                    mine = inputs.pop(layer_name, None)
                    done.append(prune_linear_layer(index, layer, mine, prune_layer))
                    report(done[-1])
                if recording is not None and index + 1 < count:
                    _advance(block, index, recording, device)
            source.give_back(index, block, done)
            records += done
    return records


def _advance(
    block: nn.Module, index: int, recording: Recording, device: torch.device | str
) -> None:
    """Replace the recorded hidden states, batch by batch, by the pruned block's outputs."""
    for batch, run in enumerate(_passes(block, index, recording, device)):
        recording.hidden[batch] = run().to(recording.hidden[batch].device)


def _passes(
    block: nn.Module, index: int, recording: Recording, device: torch.device | str
) -> Iterator[Callable[[], Tensor]]:
    """For each batch, a function that runs the block on the batch's hidden states."""
    for hidden, calls in zip(recording.hidden, recording.calls, strict=True):
        yield partial(run_block, block, hidden, calls[index], device)


def _checked_windows(model: PreTrainedModel, windows: Tensor | None) -> Tensor:
    if windows is None or windows.dim() != 2 or windows.numel() == 0:
        raise UserError("calibration needs at least one window of tokens")
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    if int(windows.max()) >= vocabulary:
        raise UserError(
            f"calibration token {int(windows.max())} is outside the model's vocabulary of "
            f"{vocabulary}: the windows were cut with another tokenizer"
        )
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and windows.shape[1] > limit:
        raise UserError(
            f"calibration windows of {windows.shape[1]} tokens are longer than the model's "
            f"context of {limit}"
        )
    return windows


@contextmanager
def _report(
    blocks: int, on_layer: Callable[[LayerRecord], None] | None
) -> Iterator[Callable[[LayerRecord], None]]:
    """A progress bar over blocks on a terminal, one line of log per layer elsewhere."""
    terminal = sys.stderr.isatty()
    with tqdm(total=blocks, unit="block", desc="pruning", disable=not terminal) as bar:

        def report(record: LayerRecord) -> None:
            bar.update(record.block - bar.n)
            bar.set_postfix_str(str(record))
            if not terminal:
                logger.info("pruned %s", record)
            if on_layer is not None:
                on_layer(record)

        yield report
        bar.update(blocks - bar.n)


@contextmanager
def _memory_advice(name: str, device: torch.device | str, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{name}: out of memory on {device}; lower the batch size (now {batch_size}) "
            "or use another device"
        ) from error
