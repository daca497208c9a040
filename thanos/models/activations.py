"""Gather the statistics of the inputs that a block's linear layers receive."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thanos.errors import UserError
from thanos.pruning import InputStatistics

from .dense import CalledWronglyError
from .experts import ExpertMatrix, RoutedInputs
from .linear import LinearLayer


def gather_statistics(
    layers: Mapping[str, LinearLayer],
    passes: Iterable[Callable[[], object]],
    *,
    gram: bool,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, InputStatistics]:
    """Run each of `passes` and return the statistics of every layer's inputs, by layer name.

    Layers that are given the very same tensor (query, key and value; gate and up) share one
    object: who shares with whom is seen in the first pass, not guessed from names. An expert's
    matrices get the statistics of the tokens that are routed to it, which may be none.

    Raises:
        CalledWronglyError: a layer is not called, or called twice, in a pass.
        UserError: its inputs are not finite.
    """
    experts = {name: layer for name, layer in layers.items() if isinstance(layer, ExpertMatrix)}
    layers = {name: layer for name, layer in layers.items() if name not in experts}
    routed = _routed_inputs(experts, gram=gram, dtype=dtype, device=device)
    statistics: dict[str, InputStatistics] = {}
    owners: dict[str, LinearLayer] = {}  # the first layer of each group that shares
    seen: list[tuple[weakref.ref[Tensor], int, str]] = []

    def assign(name: str, x: Tensor) -> None:
        if name in statistics:
            raise CalledWronglyError(name, 2)
        for tensor, version, owner in seen:
            if tensor() is x and version == x._version:
                statistics[name] = statistics[owner]
                return
        seen.append((weakref.ref(x), x._version, name))
        owners[name] = layers[name]
        statistics[name] = InputStatistics(x.shape[-1], gram=gram, dtype=dtype, device=device)
        statistics[name].update(x)

    remaining = iter(passes)
    with _watch_experts(routed):
        with _watch(layers, assign):
            next(remaining)()
        for name in layers.keys() - statistics.keys():
            raise CalledWronglyError(name, 0)
        with _watch(owners, lambda name, x: statistics[name].update(x)):
            for run in remaining:
                run()
    for inputs in routed.values():
        statistics |= inputs.statistics
    for name in (*owners, *experts):
        if not torch.isfinite(statistics[name].squared_norms).all():
            raise UserError(
                f"inputs of {name} hold NaN or infinite values; "
                "check the model, or load it in another dtype"
            )
    return statistics


def _routed_inputs(
    experts: Mapping[str, ExpertMatrix], **options: Any
) -> dict[nn.Module, RoutedInputs]:
    by_module: dict[nn.Module, dict[str, ExpertMatrix]] = {}
    for name, layer in experts.items():
        by_module.setdefault(layer.module, {})[name] = layer
    return {module: RoutedInputs(module, own, **options) for module, own in by_module.items()}


@contextmanager
def _watch_experts(routed: Mapping[nn.Module, RoutedInputs]) -> Iterator[None]:
    """Let the inputs of every experts module be seen before it runs."""

    def hook(inputs: RoutedInputs) -> Callable[..., None]:
        return lambda module, args, kwargs: inputs.see(args, kwargs)

    handles = [
        module.register_forward_pre_hook(hook(inputs), with_kwargs=True)
        for module, inputs in routed.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watch(layers: Mapping[str, LinearLayer], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `see(name, input)` whenever one of the layers is about to run."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: see(name, args[0])

    handles = [layer.module.register_forward_pre_hook(hook(n)) for n, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
