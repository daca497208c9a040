"""Thanos: prune language models block by block; `prune` does it in one call."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Pruned, prune
    from .compression.indexed import load_compact
    from .compression.packed_models import load_packed

__all__ = ["Pruned", "load_compact", "load_packed", "prune"]

# Loaded on first use: torch and transformers are for who prunes or opens a model.
_MODULES = {
    "Pruned": "call",
    "load_compact": "compression.indexed",
    "load_packed": "compression.packed_models",
    "prune": "call",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
