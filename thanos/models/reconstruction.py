"""Reconstruction of a pruned block: surviving weights trained to give the dense model's outputs.

Layers are pruned one by one, each for outputs of its own. Afterwards all of a block's weights that
are left move together, by Adam, until the block makes of the pruned model's hidden states what the
dense block makes of the dense model's (arXiv 2510.14444). Zeros stay. Some of the calibration
windows are held out and judge: the weights that are kept are the best on them, so that the block
cannot be fitted to the other windows unseen (arXiv 2406.15524 warns of that).
"""

import copy
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thanos.errors import UserError

from .linear import Layers
from .replay import Recording

logger = logging.getLogger(__name__)

HELD_OUT = 8  # one batch of so many judges
_LOOKS = 10  # at the batches held out, over all steps
_PATIENCE = 3  # looks without progress, after which the rest is left out


@dataclass(frozen=True)
class Reconstruction:
    """How blocks are reconstructed.

    Attributes:
        steps: of Adam, on one batch each.
        learning_rate: of the first step; it falls linearly to zero.
        seed: of the order of the batches.
        storage_dtype: what the weights are rounded to in the end, and whenever they are judged.
        product_dtype: of the products on the way, by autocast unless it is float32; the weights
            that move, the loss and the judgement stay as precise as they are.
    """

    steps: int
    learning_rate: float = 3e-4
    seed: int = 0
    storage_dtype: torch.dtype = torch.float32
    product_dtype: torch.dtype = torch.float32


def check(how: Reconstruction, batches: int, device: torch.device | str) -> None:
    """Check, before anything is pruned, that blocks can be trained.

    Args:
        how: they are to be.
        batches: of calibration windows.
        device: where.

    Raises:
        UserError: no batch is left to train on besides those held out, or the device cannot.
    """
    _autocast(torch.device(device), how.product_dtype)
    if batches < 2:
        raise UserError(
            "reconstruction needs one batch of calibration windows to train on and one to judge "
            "by; raise calibration.windows, or lower method.reconstruction_batch"
        )


def reconstruct(
    index: int,
    layers: Layers,
    block: nn.Module,
    pruned: Recording,
    targets: Sequence[Tensor],
    how: Reconstruction,
    device: torch.device | str,
) -> dict[str, Any]:
    """Train the weights of the block's layers in place, those that are not zero.

    Args:
        index: of the block.
        layers: the pruned ones of the block, by name.
        block: on `device`, pruned.
        pruned: with the hidden states before it, in the pruned model.
        targets: by batch, (B, T, d): the hidden states after it in the dense model.
        how: steps, rate, seed, dtype.
        device: where the block is.

    Returns:
        For the record: the squared error of the block's outputs on the batches held out, relative
        to the outputs' squares, before and after, and the step whose weights were the best.
    """
    weights = _Weights(block, layers, how.storage_dtype)
    train = list(pruned.passes(index, weights.call, device))
    judge = list(pruned.passes(index, weights.call_rounded, device))
    first_held = len(train) - max(1, len(train) // HELD_OUT)

    @torch.no_grad()
    def error() -> float:
        lost = total = 0.0
        for run, target in zip(judge[first_held:], targets[first_held:], strict=True):
            lost += float(_squared_error(run(), target))
            total += float(target.float().square().sum())
        return lost / total if total else 0.0

    before = best = error()
    best_step, kept = 0, weights.copies()
    order = _shuffled(first_held, how.seed + index)
    optimizer = torch.optim.Adam(weights.moving, lr=how.learning_rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, how.steps)
    autocast = _autocast(torch.device(device), how.product_dtype)
    look_every = max(1, how.steps // _LOOKS)
    for step in range(1, how.steps + 1 if best > 0 else 0):
        batch = next(order)
        with torch.enable_grad():
            # In units of what there is to gain, so that Adam's ε is small beside the gradients.
            size = before * targets[batch].float().square().sum().to(device)
            with autocast:
                output = train[batch]()
            loss = _squared_error(output, targets[batch]) / size
            gradients = torch.autograd.grad(loss, weights.moving, materialize_grads=True)
        for weight, gradient in zip(weights.moving, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        falling.step()
        if step % look_every and step < how.steps:
            continue
        if (now := error()) < best:
            best, best_step, kept = now, step, weights.copies()
        elif step - best_step >= _PATIENCE * look_every:
            break
    weights.write(kept)
    logger.info(
        "block %d: error of its outputs on windows held out %.3g, before %.3g (step %d)",
        *(index, best, before, best_step),
    )
    return {"block_error_before": before, "block_error": best, "reconstruction_steps": best_step}


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output.float() - target.to(output.device).float()).square().sum()


def _autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    if dtype == torch.float32:
        return nullcontext()
    if not torch.amp.is_autocast_available(device.type):
        raise UserError(
            f"device {device} cannot compute products in another precision than its operands'; "
            "leave method.reconstruction_precision out"
        )
    return torch.autocast(device.type, dtype)


def _shuffled(count: int, seed: int) -> Any:
    """Numbers below `count` in a random order, then in another one, and so on."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


class _Weights:
    """The parameters that hold a block's pruned layers, in float32 while they move.

    Args:
        block: as it is pruned.
        layers: its pruned ones. What of their parameters belongs to other layers stays as it is.
        storage_dtype: what they are rounded to.
    """

    def __init__(self, block: nn.Module, layers: Layers, storage_dtype: torch.dtype) -> None:
        self._block = block
        self._storage_dtype = storage_dtype
        names = {id(parameter): name for name, parameter in block.named_parameters()}
        self._parameters: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        for layer in layers.values():
            parameter = layer.module.get_parameter(layer.parameter)
            name = names[id(parameter)]
            if name not in self._kept:
                self._parameters[name] = parameter.detach()
                self._kept[name] = torch.zeros_like(parameter, dtype=torch.bool)
            layer.part(self._kept[name]).copy_(layer.stored != 0)
        self.moving = [
            weight.to(torch.float32, copy=True).requires_grad_()
            for weight in self._parameters.values()
        ]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block with the weights as they are now; zeros, and what is not pruned, stay."""
        return self._call(self._now(rounded=False), args, kwargs)

    def call_rounded(self, *args: Any, **kwargs: Any) -> Any:
        """Run it with the weights as they would be stored."""
        return self._call(self._now(rounded=True), args, kwargs)

    def _call(self, now: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
        return functional_call(self._block, now, args, kwargs)

    def _now(self, *, rounded: bool) -> dict[str, Tensor]:
        now = {}
        for (name, weight), moving in zip(self._parameters.items(), self.moving, strict=True):
            new = moving.to(self._storage_dtype) if rounded else moving
            now[name] = torch.where(self._kept[name], new.to(weight.dtype), weight)
        return now

    def copies(self) -> list[Tensor]:
        """The weights as they are now, for `write`."""
        return copy.deepcopy([weight.detach() for weight in self.moving])

    def write(self, copies: list[Tensor]) -> None:
        """Put earlier weights into the block, rounded."""
        for moving, earlier in zip(self.moving, copies, strict=True):
            moving.detach().copy_(earlier)
        for name, weight in self._now(rounded=True).items():
            self._parameters[name].copy_(weight)
