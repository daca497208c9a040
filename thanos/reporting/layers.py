"""Where the loss is: relative error and sparsity by layer type, and the layer that lost most."""

from typing import Any

import pandas as pd

from thanos.reporting import notes
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import (
    VARIANT_COLUMNS,
    file_name,
    method_label,
    method_rank,
    pattern_label,
)
from thanos.reporting.measures import Measure, only_pruned, records, with_variants

_ROW_KEYS = ["pattern", "method", *VARIANT_COLUMNS]
_ERROR = Measure("relative_error")


def layer_tables(layers: pd.DataFrame) -> list[Table]:
    """One table per model, `layers-<model>`: a row per pattern and method.

    Relative errors are means over blocks and seeds by layer type; beside them the layer of the
    largest error (mean over seeds) and the range of sparsity over all layers. `layers` is of
    `collect`; a run without errors gets gaps.
    """
    layers = with_variants(only_pruned(layers))  # all others were pruned the same way
    return [_table(str(model), rows) for model, rows in layers.groupby("model", sort=True)]


def _table(model: str, layers: pd.DataFrame) -> Table:
    kinds = list(dict.fromkeys(layers["layer_type"]))
    found = []
    for values, rows in layers.groupby(_ROW_KEYS, sort=False):
        key: dict[str, Any] = dict(zip(_ROW_KEYS, values, strict=True))
        cells = (*_errors(rows, kinds), _worst(rows), _sparsity(rows["sparsity"]))
        label = (pattern_label(key["pattern"]).title, method_label(key))
        order = (pattern_label(key["pattern"]), method_rank(key))
        found.append((order, Row(label, cells).of_runs(rows["run"])))
    body = tuple(row for _, row in sorted(found, key=lambda pair: pair[0]))
    return Table(
        file_name("layers", model),
        f"Where the loss is in {model}",
        ("Pattern", "Method"),
        (
            *(Column("Mean relative error ↓", kind) for kind in kinds),
            Column("Largest", "in"),
            Column("Sparsity (%)", "of the layers"),
        ),
        (Block(model, body),),
        (
            "Relative error: of a layer's outputs on the calibration tokens, squared and summed, "
            "over the dense layer's.",
            *notes.gap_note(body),
        ),
    )


def _errors(rows: pd.DataFrame, kinds: list[str]) -> list[Cell]:
    means = rows.groupby("layer_type")["relative_error"].mean().dropna().to_dict()
    return [_cell(means.get(kind)) for kind in kinds]


def _worst(rows: pd.DataFrame) -> Cell:
    means = rows.groupby(["block", "layer_type"])["relative_error"].mean().dropna()
    if means.empty:
        return Cell()
    worst = records(means.nlargest(1).reset_index())[0]
    value = float(worst["relative_error"])
    place = f"{worst['layer_type']} of block {worst['block']}"
    return Cell(f"{place}: {_ERROR.text(value)}", value)


def _sparsity(values: pd.Series) -> Cell:
    low, high = (f"{100 * value:.1f}" for value in (values.min(), values.max()))
    return Cell(low if low == high else f"{low}–{high}", float(values.mean()))


def _cell(value: float | None) -> Cell:
    return Cell() if value is None else Cell(_ERROR.text(value), value)
