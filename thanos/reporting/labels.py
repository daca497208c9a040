"""How patterns and methods are named, ordered and shown, the same in every table and figure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thanos.errors import UserError
from thanos.pruning.errors import PruningError
from thanos.pruning.patterns import HeadsAndNeurons, SemiStructured, Structured, parse_pattern

DENSE = "dense"
METHOD_NAMES = {
    DENSE: "Dense",
    "magnitude": "Magnitude",
    "wanda": "Wanda",
    "sparsegpt": "SparseGPT",
    "thanos": "Thanos",
    "admm": "ADMM",
}
# What, beside its name, makes one method another row of a table: all off in the paper's configs.
_OPTION_TEXTS = {
    "outlier_fraction": "α={:g}",
    "outlier_score": "{} score",
    "refine_steps": "refine {:g}",
    "order": "{}",
    "correction": "β={:g}",
    "channel_permutation": "permuted",
    "allocation": "{} allocation",
    "allocation_unit": "per {}",
    "reconstruction_steps": "reconstruct {:g}",
}
VARIANT_COLUMNS = (*_OPTION_TEXTS, "label")

_TO_BLOCK = re.compile(r"^.*?\.\d+\.")

# Configuration keys whose column in the frame is not simply their last part.
_COLUMNS = {
    "pattern": "nominal_sparsity",
    "recovery.steps": "recovery_steps",
    "calibration.windows": "calibration_windows",
    "calibration.source": "calibration_source",
    "method": "method",
    "method.metric": "mask_metric",
    "method.scope": "mask_scope",
    "method.update": "mask_update",
}


def column_of(key: str) -> str:
    """The frame's column of a configuration key (`method.block_size`); columns stay as they are."""
    return _COLUMNS.get(key, key.rsplit(".", 1)[-1])


@dataclass(frozen=True, order=True)
class PatternLabel:
    """A pattern as a reader meets it; the field order is the order of the table's blocks."""

    rank: int
    sparsity: float  # nominal, 0 to 1; for n:m that of α = 0
    group_size: int  # m of n:m, negated so that 4:8 comes before 2:4 as in the paper; else 0
    text: str  # canonical: dense, unstructured:0.5, 2:4, structured:0.3, …

    @property
    def kind(self) -> str:
        """`dense`, `unstructured`, `structured`, `heads-neurons` or `n:m`."""
        return (DENSE, "unstructured", "structured", "heads-neurons", "n:m")[self.rank]

    @property
    def title(self) -> str:
        """The text for people: `Unstructured 50%`, `2:4`."""
        if self.kind in ("unstructured", "structured"):
            return f"{self.kind.capitalize()} {100 * self.sparsity:.12g}%"
        if self.kind == "heads-neurons":
            return f"Heads and neurons {100 * self.sparsity:.12g}%"
        return self.text.capitalize()

    @property
    def family(self) -> str:
        """The title without the sparsity: `Unstructured`, `n:4`."""
        return f"n:{-self.group_size}" if self.kind == "n:m" else self.kind.capitalize()


def pattern_label(text: str) -> PatternLabel:
    """The label of a pattern's text, or of `dense`.

    Raises UserError for anything else.
    """
    if text == DENSE:
        return PatternLabel(0, 0.0, 0, DENSE)
    try:
        pattern = parse_pattern(text)
    except PruningError as error:
        raise UserError(str(error)) from error
    if isinstance(pattern, SemiStructured):
        return PatternLabel(4, pattern.sparsity, -pattern.m, str(pattern))
    rank = 1 + isinstance(pattern, Structured) + isinstance(pattern, HeadsAndNeurons)
    return PatternLabel(rank, pattern.sparsity, 0, str(pattern))


def layer_type(layer: str) -> str:
    """A layer's name within its block: `self_attn.q_proj` of `model.layers.0.self_attn.q_proj`."""
    return _TO_BLOCK.sub("", layer, count=1)


def file_name(*parts: str) -> str:
    """A table's or figure's name, from its kind and a model's or pattern's text."""
    return "-".join(part.replace(":", "-").replace(" ", "-") for part in parts)


def variant_options(row: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, str]:
    """The options of `row` that are not neutral, as text, except those in `without`."""
    options = {}
    for column in _OPTION_TEXTS:
        value = row.get(column)
        if column in without or _is_off(value):
            continue
        options[column] = _OPTION_TEXTS[column].format(value)
    return options


def own_label(row: Mapping[str, Any]) -> str:
    """What `method.label` calls the method of `row`; empty where that is its own name."""
    label = "" if _is_off(row.get("label")) else str(row["label"])
    return "" if label.casefold() == str(row["method"]).casefold() else label


def method_label(row: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """The method's label, or name, with what distinguishes the variant: `Thanos (α=0.1)`.

    `row` holds `method` and the variant columns; those in `without` are not mentioned.
    """
    label = "" if "label" in without else own_label(row)
    name = label or METHOD_NAMES.get(row["method"], str(row["method"]))
    options = variant_options(row, without)
    return f"{name} ({', '.join(options.values())})" if options else name


def method_rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort key: the paper's order of methods, unknown ones after them, plain before variants."""
    names = list(METHOD_NAMES)
    method = row["method"]
    place = names.index(method) if method in names else len(names)
    values = tuple(str(row.get(column)) for column in _OPTION_TEXTS)
    return place, str(method), own_label(row), len(variant_options(row)), values


def _is_off(value: Any) -> bool:
    """Whether a variant option has its neutral value (NaN: the run has no such option)."""
    if value is None or value in ("", 0, "exact", "block"):
        return True
    return isinstance(value, float) and math.isnan(value)
