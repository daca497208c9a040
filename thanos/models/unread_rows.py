"""Find out, from one backward pass through a running block, which rows of a layer nothing reads.

The names of layers say nothing here, nor does the way in which a layer's rows are arranged: once
some input channels of a layer are removed, a row whose output only went there has the gradient
zero, exactly, whatever lies between the two (activation, gating, attention, shared heads).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from .linear import LinearLayer

Run = Callable[[], Tensor]  # the block on some hidden states of one window


def unread_rows(
    run: Run, layers: Mapping[str, LinearLayer], removed: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Which rows of each layer, (c,) bool, feed nothing but removed channels of layers.

    Every other channel of every layer counts as read, whatever the weights are.

    Args:
        run: the block, in float32 or wider: where gradients are not rounded to zero.
        layers: of the block, by name.
        removed: of some of them, by name, input columns (b,) bool that nobody is to read.
    """
    generator = torch.Generator().manual_seed(0)
    outputs: dict[str, Tensor] = {}

    def without_removed(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
            return args[0].masked_fill(removed[name].to(args[0].device), 0), *args[1:]

        return hook

    def probe(name: str, layer: LinearLayer) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            rows, columns = (1 + torch.rand(n, generator=generator).to(output) for n in layer.shape)
            output = output + (args[0] * columns).sum(-1, keepdim=True) * rows
            # Positive, because an activation such as relu has no gradient among negative values.
            noise = 1 + torch.rand(output.shape, generator=generator).to(output)
            outputs[name] = (noise - output).detach().requires_grad_()
            return output + outputs[name]

        return hook

    with ExitStack() as hooks, torch.enable_grad():
        for name in removed:
            hooked = layers[name].module.register_forward_pre_hook(without_removed(name))
            hooks.callback(hooked.remove)
        for name, layer in layers.items():
            hooks.callback(layer.module.register_forward_hook(probe(name, layer)).remove)
        result = run()
        loss = (result * torch.rand(result.shape, generator=generator).to(result)).sum()
        found = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
    gradients = dict(zip(outputs, found, strict=True))
    return {name: _unread(gradients.get(name), layer) for name, layer in layers.items()}


def _unread(gradient: Tensor | None, layer: LinearLayer) -> Tensor:
    if gradient is None:
        return torch.ones(layer.shape[0], dtype=torch.bool, device=layer.stored.device)
    return (gradient == 0).flatten(0, -2).all(0)
