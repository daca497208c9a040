"""Sparsity patterns and their text form."""

import math
import re
from dataclasses import dataclass

from .errors import PruningError

FORMS = "use 0.5 or unstructured:0.5, 2:4, structured:0.3, heads-neurons:0.3"
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

    @property
    def sparsity(self) -> float:
        """The share of zeros that it asks for."""
        return self.p

    def __str__(self) -> str:
        return f"unstructured:{self.p!r}"  # all its digits: 0.5 and 0.50001 are two patterns


@dataclass(frozen=True)
class SemiStructured:
    """n:m — at most n non-zero weights in every group of m consecutive inputs of a row."""

    n: int
    m: int

    @property
    def sparsity(self) -> float:
        """The share of zeros that it asks for."""
        return 1 - self.n / self.m

    @property
    def mixes(self) -> bool:
        """Whether some layers can keep less than n, and others as much more without keeping all."""
        return 1 < self.n < self.m - 1

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Structured:
    """Whole input columns are zero, as many as give the layer the sparsity p."""

    p: float

    @property
    def sparsity(self) -> float:
        """The share of zeros that it asks for."""
        return self.p

    def removed(self, rows: int, columns: int, pruned: int, unit: int) -> int:
        """Columns that go: s, as many as give the layer the sparsity at least.

        Args:
            rows: c.
            columns: b.
            pruned: rows that are no outlier rows.
            unit: columns that go together.
        """
        return ceil_count(self.p * rows * columns / pruned)

    def __str__(self) -> str:
        return f"structured:{self.p!r}"


@dataclass(frozen=True)
class HeadsAndNeurons(Structured):
    """Structured so that a narrower model is left: whole attention heads and MLP neurons.

    Heads that share keys and values go together. Only the columns that stand for heads or neurons
    are chosen among (those of the output and the down projection); with them go the rows that
    nothing else reads. The number of units is the nearest to p, the same in every layer.
    """

    def removed(self, rows: int, columns: int, pruned: int, unit: int) -> int:
        """Columns of whole units, see `Structured.removed`."""
        return unit * floor_count(self.p * columns / unit + 0.5)

    def __str__(self) -> str:
        return f"heads-neurons:{self.p!r}"


Pattern = Unstructured | SemiStructured | Structured


def parse_pattern(text: str | float | Pattern) -> Pattern:
    """Parse a pattern: `0.5`, `unstructured:0.5`, `2:4`, `structured:0.3`, `heads-neurons:0.3`.

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
        "heads-neurons": HeadsAndNeurons,
    }
    try:
        p = float(number)
    except ValueError:
        p = math.nan
    if kind not in kinds or math.isnan(p):
        raise PruningError(f"pattern {words!r} is not a sparsity pattern; {FORMS}")
    if not 0 <= p < 1:
        raise PruningError(f"pattern {words!r}: the sparsity must be in [0, 1)")
    return kinds[kind](p + 0.0)  # a negative zero is zero


def check_shape(
    rows: int, columns: int, pattern: Pattern, outlier_fraction: float = 0.0, unit: int = 1
) -> None:
    """Whether a layer of this shape can have the pattern: asked before any work is done.

    Args:
        rows: c, out_features.
        columns: b, in_features.
        pattern: to be given to it.
        outlier_fraction: α; ⌈αc⌉ rows stay dense.
        unit: columns that go together, of a structured pattern.

    Raises:
        PruningError: it cannot; the message says why and what to change.
    """
    if not 0 <= outlier_fraction < 1:
        raise PruningError(f"outlier_fraction {outlier_fraction:g} must be in [0, 1)")
    outliers = ceil_count(outlier_fraction * rows)
    pruned = rows - outliers
    if outliers and pruned <= 0:
        raise PruningError(
            f"outlier_fraction {outlier_fraction:g} keeps all {rows} rows dense; "
            "lower it for a layer this small"
        )
    if isinstance(pattern, SemiStructured):
        if columns % pattern.m:
            raise PruningError(
                f"pattern {pattern} needs a width that is a multiple of {pattern.m}; "
                f"the layer has {columns} inputs"
            )
    elif isinstance(pattern, HeadsAndNeurons):
        if outliers:
            raise PruningError(
                f"pattern {pattern} with outlier rows leaves no narrower model, for they read what "
                "the others lost; set outlier_fraction=0, or use structured"
            )
        if columns % unit or pattern.removed(rows, columns, pruned, unit) >= columns:
            raise PruningError(
                f"pattern {pattern} would leave none of {columns / unit:g} units of {unit} "
                "columns; lower the sparsity"
            )
    elif isinstance(pattern, Structured):
        removed = pattern.removed(rows, columns, pruned, unit)
        if removed > columns:
            raise PruningError(
                f"pattern {pattern} with {outliers} of {rows} rows kept dense would "
                f"remove {removed} of {columns} columns; lower the sparsity or the outlier fraction"
            )
    elif floor_count(pattern.p * rows * columns) > pruned * columns:
        raise PruningError(
            f"sparsity {pattern.p:g} with {outliers} of {rows} rows kept dense leaves nothing of "
            "the other rows; lower the sparsity or the outlier fraction"
        )
