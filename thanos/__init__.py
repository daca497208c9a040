"""Thanos: prune language models block by block; `prune` does it in one call."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Pruned, prune

__all__ = ["Pruned", "prune"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # torch and transformers are loaded by who prunes
        from . import call

        return getattr(call, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
