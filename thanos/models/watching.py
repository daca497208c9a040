"""See what reaches the layers of a block that runs, and end its pass when all was seen."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from .experts import ExpertMatrix
from .linear import Layers, LinearLayer


class _SeenError(Exception):
    """Ends a pass of which nothing more is wanted."""


def until_seen(run: Callable[[], object]) -> None:
    """Run a pass to its end, or until `end_after` ends it."""
    with suppress(_SeenError):
        run()


def end_after(enough: float) -> Callable[[str], None]:
    """A function that is told what is seen in a pass, and ends it after so many of them."""
    seen: set[str] = set()

    def ended(name: str) -> None:
        seen.add(name)
        if len(seen) >= enough:
            raise _SeenError

    return ended


@contextmanager
def watch_experts(
    experts: Mapping[str, Mapping[str, ExpertMatrix]],
    see: Callable[[str, tuple[Any, ...], dict[str, Any]], None],
    ended: Callable[[str], None],
) -> Iterator[None]:
    """Call `see(name, args, kwargs)` whenever a module of experts is about to run."""

    def hook(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            see(name, args, kwargs)
            ended(name)

        return seen

    modules = {name: next(iter(own.values())).module for name, own in experts.items()}
    handles = [
        module.register_forward_pre_hook(hook(name), with_kwargs=True)
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch(
    layers: Mapping[str, LinearLayer],
    see: Callable[[str, Tensor], None],
    ended: Callable[[str], None],
) -> Iterator[None]:
    """Call `see(name, input)` whenever one of the layers is about to run."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def seen(module: nn.Module, args: tuple[Any, ...]) -> None:
            see(name, args[0])
            ended(name)

        return seen

    handles = [layer.module.register_forward_pre_hook(hook(n)) for n, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def apart(layers: Layers) -> tuple[Layers, dict[str, dict[str, ExpertMatrix]]]:
    """Layers that are modules, and the matrices of each module of experts by the module's name."""
    experts: dict[str, dict[str, ExpertMatrix]] = {}
    for name, layer in layers.items():
        if isinstance(layer, ExpertMatrix):
            experts.setdefault(name.rsplit(".", 2)[0], {})[name] = layer
    plain = {name: layer for name, layer in layers.items() if not isinstance(layer, ExpertMatrix)}
    return plain, experts


def sharing() -> Callable[[str, Tensor], str]:
    """A function that says which layer was the first to be given the very tensor that one gets."""
    seen: list[tuple[weakref.ref[Tensor], int, str]] = []

    def owner_of(name: str, x: Tensor) -> str:
        for tensor, version, owner in seen:
            if tensor() is x and version == x._version:
                return owner
        seen.append((weakref.ref(x), x._version, name))
        return name

    return owner_of
