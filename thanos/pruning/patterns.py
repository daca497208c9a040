"""Sparsity patterns and their text form."""

import math
import re
from dataclasses import dataclass

from .errors import PruningError

FORMS = "use 0.5 or unstructured:0.5, 2:4, structured:0.3"
# Counts are shares rounded to whole weights; this absorbs the noise of the product, as in
# 0.3·10 = 3.0000000000000004.
_SLACK = 1e-9


def floor_count(share: float) -> int:
    """Round a count down, forgiving floating-point noise just below a whole number."""
    return math.floor(share + _SLACK)


def ceil_count(share: float) -> int:
    """Round a count up, forgiving floating-point noise just above a whole number."""
    return math.ceil(share - _SLACK)


@dataclass(frozen=True)
class Unstructured:
    """⌊p·c·b⌋ zeros in the layer."""

    p: float

    def __str__(self) -> str:
        return f"unstructured:{self.p:g}"


@dataclass(frozen=True)
class SemiStructured:
    """n:m — at most n non-zero weights in every group of m consecutive inputs of a row."""

    n: int
    m: int

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Structured:
    """Whole input columns are zero, as many as give the layer the sparsity p."""

    p: float

    def __str__(self) -> str:
        return f"structured:{self.p:g}"


Pattern = Unstructured | SemiStructured | Structured


def parse_pattern(text: str | float | Pattern) -> Pattern:
    """Parse a sparsity pattern: `0.5`, `unstructured:0.5`, `2:4` or `structured:0.3`.

    Raises:
        PruningError: if the text has none of these forms, the sparsity is outside [0, 1) or n ≥ m.
    """
    if isinstance(text, Pattern):
        return text
    words = str(text).strip()
    if match := re.fullmatch(r"(\d+):(\d+)", words):
        n, m = int(match[1]), int(match[2])
        if not 0 < n < m:
            raise PruningError(
                f"pattern {words!r}: n:m keeps n of m weights, so 0 < n < m; {FORMS}"
            )
        return SemiStructured(n, m)
    kind, _, number = words.rpartition(":")
    kinds: dict[str, type[Unstructured] | type[Structured]] = {
        "": Unstructured,
        "unstructured": Unstructured,
        "structured": Structured,
    }
    try:
        p = float(number)
    except ValueError:
        p = math.nan
    if kind not in kinds or math.isnan(p):
        raise PruningError(f"pattern {words!r} is not a sparsity pattern; {FORMS}")
    if not 0 <= p < 1:
        raise PruningError(f"pattern {words!r}: the sparsity must be in [0, 1)")
    return kinds[kind](p)
