"""Prune one linear layer with a given function and record what was done."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from thanos.accelerator import read, wait_for
from thanos.errors import UserError
from thanos.pruning import InputStatistics, PruningError

from .channels import Channels
from .experts import is_rare
from .linear import Layers, LinearLayer

logger = logging.getLogger(__name__)


class PrunedWeight(Protocol):
    """What a pruning function returns for one layer."""

    @property
    def weight(self) -> Tensor:
        """The pruned weight, (out_features, in_features)."""

    @property
    def relative_error(self) -> float | None:
        """The layer objective relative to the dense layer's; None if not known."""

    @property
    def damping(self) -> float | None:
        """The λ that was used; None if the method uses none."""

    @property
    def details(self) -> dict[str, Any]:
        """Whatever else the method wants on record."""

    @property
    def channel_order(self) -> Tensor | None:
        """The order of the input channels, if it was free to choose; see `prune_weight`."""


# Of a weight and the statistics of its inputs, or None; what is said of one layer comes by name:
# `given_mask`, what is removed, `pattern`, `unit`, how many columns go together, and `channels`,
# which can change places.
PruneLayer = Callable[..., PrunedWeight]


@dataclass(frozen=True)
class LayerRecord:
    """What was done to one linear layer."""

    block: int
    name: str  # full name in the model
    shape: tuple[int, int]  # (out_features, in_features)
    sparsity: float  # true share of zeros in the weight as written
    relative_error: float | None
    seconds: float  # in the pruning function; it may do once what layers with the same inputs share
    damping: float | None
    details: dict[str, Any]

    def __str__(self) -> str:
        loss = "" if self.relative_error is None else f"relative error {self.relative_error:.3g}, "
        return f"{self.name}: {loss}sparsity {self.sparsity:.4f}, {self.seconds:.2f} s"


def prune_linear_layer(
    block: int,
    layer: LinearLayer,
    inputs: InputStatistics | None,
    prune_layer: PruneLayer,
    data_free: PruneLayer | None = None,
    given: Mapping[str, Any] | None = None,
    channels: tuple[Channels, Layers] | None = None,
) -> LayerRecord:
    """Replace the layer's weight by what `prune_layer` makes of it.

    If its input channels can change places, the layers that make them follow. An expert that saw
    fewer tokens than it has columns is pruned by `data_free` instead, and its record says so.

    Raises:
        UserError: the weight is not finite, before or after, or cannot be pruned as asked; or
            there is such an expert and no `data_free`.
    """
    notes: dict[str, Any] = {}
    if inputs is not None and is_rare(layer, inputs):
        prune_layer, notes = _for_rare_expert(layer, inputs, data_free)
        inputs = None
    weight = layer.weight
    if not torch.isfinite(weight).all():
        raise UserError(f"weight of {layer.name} holds NaN or infinite values; check the model")
    given = dict(given or {})
    if channels is not None:
        given["channels"] = channels[0].columns
    start = _now(weight.device)
    try:
        result = prune_layer(weight, inputs, **given)
    except PruningError as error:
        raise UserError(f"{layer.name}: {error}") from error
    seconds = _now(weight.device) - start
    layer.write(result.weight)
    if channels is not None and result.channel_order is not None:
        channels[0].follow(result.channel_order.cpu(), channels[1])
    written = layer.weight
    finite, nonzero = read(torch.isfinite(written).all(), written.count_nonzero())
    if not finite:
        raise UserError(
            f"pruned weight of {layer.name} holds NaN or infinite values; "
            "raise the damping, or load the model in float32"
        )
    return LayerRecord(
        block=block,
        name=layer.name,
        shape=layer.shape,
        sparsity=1 - int(nonzero) / written.numel(),
        relative_error=result.relative_error,
        seconds=seconds,
        damping=result.damping,
        details={**result.details, **notes},
    )


def share_of_zeros(weight: Tensor) -> float:
    """The true sparsity of a weight."""
    return 1 - int(weight.count_nonzero()) / weight.numel()


def _for_rare_expert(
    layer: LinearLayer, inputs: InputStatistics, data_free: PruneLayer | None
) -> tuple[PruneLayer, dict[str, Any]]:
    seen = f"{layer.name} saw {inputs.tokens} tokens, fewer than its {layer.shape[1]} columns"
    if data_free is None:
        raise UserError(
            f"{seen}; raise calibration.windows, or set model.rare_experts=magnitude to prune "
            "such experts without data"
        )
    logger.warning("%s: pruned without data", seen)
    return data_free, {"tokens": inputs.tokens, "data_free": True}


def _now(device: torch.device) -> float:
    wait_for(device)
    return time.perf_counter()
