"""Which value of a swept option each type of layer prefers, by its own relative error."""

import pandas as pd

from thanos.reporting.ablations import axis_text, from_no_outliers
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import (
    DENSE,
    VARIANT_COLUMNS,
    column_of,
    method_label,
    method_rank,
    pattern_label,
)
from thanos.reporting.measures import records, with_variants


def layer_type_table(layers: pd.DataFrame, axis: str) -> Table | None:
    """The value of `axis` with the smallest mean relative error over blocks, per layer type.

    A row per layer type, a column per model × pattern × method; `layers` is of `collect`.
    None where nothing varies.
    """
    axis = column_of(axis)
    rows = with_variants(layers).dropna(subset=["relative_error", axis])
    rows = rows[rows["pattern"] != DENSE]
    if axis == "outlier_fraction":
        rows = from_no_outliers(rows)
    if rows[axis].nunique() < 2:
        return None
    keys = ["model", "pattern", "method", *(name for name in VARIANT_COLUMNS if name != axis)]
    groups = sorted(
        records(rows[keys].drop_duplicates()),
        key=lambda row: (row["model"], pattern_label(row["pattern"]), method_rank(row)),
    )
    means = rows.groupby([*keys, "layer_type", axis])["relative_error"].mean().reset_index()
    kinds = list(dict.fromkeys(rows["layer_type"]))
    columns, cells = [], []
    for group in groups:
        here = means[(means[keys] == pd.Series(group)).all(axis=1)]
        if here[axis].nunique() < 2:
            continue
        title = f"{group['model']}, {pattern_label(group['pattern']).title}"
        columns.append(Column(title, method_label(group, (axis,))))
        best = here.loc[here.groupby("layer_type")["relative_error"].idxmin()]
        values = best.set_index("layer_type")[axis]
        runs = tuple(rows.loc[(rows[keys] == pd.Series(group)).all(axis=1), "run"].unique())
        cells.append([_cell(values.get(kind), runs) for kind in kinds])
    if not columns:
        return None
    body = tuple(
        Row((kind,), tuple(column[index] for column in cells)) for index, kind in enumerate(kinds)
    )
    name = axis.replace("_", " ")
    return Table(
        f"layer-types-{axis.replace('_', '-')}",
        f"Best {name} per layer type",
        ("Layer type",),
        tuple(columns),
        (Block("Smallest mean relative error over the decoder blocks", body),),
        (f"Each cell is the {name} at which layers of that type keep most of their output.",),
    )


def _cell(value: float | None, runs: tuple[str, ...]) -> Cell:
    return Cell() if value is None else Cell(axis_text(float(value)), float(value), runs=runs)
