"""The pruning mathematics: tensors in, tensors out; knows no model, file or configuration."""

from .composition import METHODS, METRICS, SCOPES, UPDATES, Method, compose
from .errors import PruningError
from .patterns import Pattern, SemiStructured, Structured, Unstructured, parse_pattern
from .prune import PruningResult, prune_weight, required_statistics
from .statistics import InputStatistics

__all__ = [
    "METHODS",
    "METRICS",
    "SCOPES",
    "UPDATES",
    "InputStatistics",
    "Method",
    "Pattern",
    "PruningError",
    "PruningResult",
    "SemiStructured",
    "Structured",
    "Unstructured",
    "compose",
    "parse_pattern",
    "prune_weight",
    "required_statistics",
]
