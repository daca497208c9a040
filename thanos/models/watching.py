"""See what reaches the layers of a block that runs, and end its pass when all was seen."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from .experts import ExpertMatrix
from .linear import LinearLayer


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
