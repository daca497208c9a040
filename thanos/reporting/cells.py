"""Which runs share a cell of a table, and what they must then be alike in.

Known of a run before anything of it is computed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, VARIANT_COLUMNS, column_of, own_label

# Besides its name and the pattern: what makes a method the same, whatever it prunes and from what.
METHOD_OPTIONS = (
    *("outlier_fraction", "outlier_score", "block_size", "damping", "refine_steps"),
    *("iterations", "penalty", "schedule", "order", "correction", "channel_permutation"),
    *("allocation", "allocation_spread", "allocation_unit"),
    *("reconstruction_steps", "reconstruction_rate", "reconstruction_batch"),
    *("reconstruction_precision", "mask_metric", "mask_scope", "mask_update"),
)
# Runs that differ in one of these measured different things: never averaged together.
CONDITIONS = (
    *("calibration", "calibration_source", "calibration_windows"),
    *("evaluation", "model_path", *METHOD_OPTIONS, "mask"),
    *("context", "source", "quantization", "add_bos"),
    *("recovery", "recovery_steps", "learning_rate", "distillation"),
)
# A dense model has no calibration.
DENSE_CONDITIONS = (
    *("quantization", "model_path", "context", "source", "add_bos"),
    *("recovery", "recovery_steps", "learning_rate", "distillation"),
)
_REMEDY = "give each a method.label of its own, make that an axis or select runs"
# Besides axes and what tells methods apart: in tables of their own, or in columns.
_APART = (
    *("model", "pattern", "method", "calibration", "calibration_source", "calibration_windows"),
    *("quantization", "recovery", "evaluation"),
)


def refuse_shared_cells(
    runs: Iterable[tuple[str, Mapping[str, Any]]], axes: Sequence[str] = ()
) -> None:
    """Refuse runs that would stand in one cell without being alike, before they are computed.

    Two methods of one label would stand in two rows that nobody can tell apart.

    Args:
        runs: names of runs, and their columns.
        axes: configuration keys that their tables vary.

    Raises:
        UserError: the message names two runs and what they differ in, or the label.
    """
    apart = dict.fromkeys((*_APART, *VARIANT_COLUMNS, *map(column_of, axes)))
    cells: dict[tuple[Any, ...], list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    methods: dict[str, str] = {}
    for name, columns in runs:
        if columns["pattern"] == DENSE:
            continue
        called = {**columns, "label": own_label(columns)}
        method = methods.setdefault(called["label"], columns["method"])
        if called["label"] and method != columns["method"]:
            raise UserError(
                f"method.label {called['label']!r} is of two methods, {method} and "
                f"{columns['method']}; give each a label of its own"
            )
        shared = cells[tuple(called.get(key) for key in apart)]
        for other, its in shared:
            differing = [key for key in CONDITIONS if columns.get(key) != its.get(key)]
            if differing or columns["seed"] == its["seed"]:
                what = ", ".join(differing) or "nothing that tables tell"
                raise UserError(
                    f"{other} and {name} would share a cell of a table and differ in {what}: "
                    f"{remedy_of(differing)}"
                )
        shared.append((name, columns))


def remedy_of(differing: Iterable[str]) -> str:
    """What to do about runs of one cell that differ in some of the `CONDITIONS`."""
    return "give each model a model.name of its own" if "model_path" in differing else _REMEDY
