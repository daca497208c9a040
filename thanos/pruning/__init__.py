"""The pruning mathematics: tensors in, tensors out; knows no model, file or configuration."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .composition import METHODS, METRICS, SCOPES, UPDATES, Alternation, Method, compose
from .errors import PruningError
from .patterns import (
    HeadsAndNeurons,
    Pattern,
    SemiStructured,
    Structured,
    Unstructured,
    check_shape,
    parse_pattern,
)

if TYPE_CHECKING:
    from .prune import PruningResult, prune_weight, required_statistics
    from .statistics import InputStatistics

__all__ = [
    "METHODS",
    "METRICS",
    "SCOPES",
    "UPDATES",
    "Alternation",
    "HeadsAndNeurons",
    "InputStatistics",
    "Method",
    "Pattern",
    "PruningError",
    "PruningResult",
    "SemiStructured",
    "Structured",
    "Unstructured",
    "check_shape",
    "compose",
    "parse_pattern",
    "prune_weight",
    "required_statistics",
]

# Names whose modules import torch: loaded on first use, so that checking a configuration costs
# milliseconds instead of torch's start-up time.
_NEED_TORCH = {
    "InputStatistics": "statistics",
    "PruningResult": "prune",
    "prune_weight": "prune",
    "required_statistics": "prune",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_TORCH:
        return getattr(import_module(f".{_NEED_TORCH[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
