"""Ablation tables: a metric over the values of one swept option, or over a grid of several."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import pandas as pd

from thanos.errors import UserError
from thanos.reporting import notes
from thanos.reporting.evidence import Evidence
from thanos.reporting.grid import GAP, Block, Cell, Column, Row, Table, mark_best, measured
from thanos.reporting.labels import (
    DENSE,
    VARIANT_COLUMNS,
    column_of,
    method_label,
    method_rank,
    pattern_label,
)
from thanos.reporting.measures import (
    Measure,
    main_measures,
    over_seeds,
    records,
    refuse_mixed_protocols,
    with_variants,
)

# Columns that are split by what differs in the calibration, each with the axes that vary just that.
_CALIBRATION = {
    "calibration": {"calibration", "calibration_source"},
    "calibration_windows": {"calibration_windows"},
}


def ablation_table(
    frame: pd.DataFrame,
    axis: str | Sequence[str],
    measure: Measure | None = None,
    *,
    windows: pd.DataFrame | None = None,
    name: str | None = None,
) -> Table:
    """One row per value of the swept column(s) `axis`, a column per model × pattern × method.

    `axis` is any column of the frame or its configuration key, several make a grid (mask metric ×
    scope × update); where the runs have several calibrations, the columns are split by them too,
    so that sources are compared at equal sizes. The best value of each column is marked; over
    `nominal_sparsity` alone or calibration sizes, where values must differ, the best method of each
    row instead: where evidence supports it, for which a single seed needs `windows`, of `collect`.
    `measure` is by default the first perplexity.
    """
    axes = tuple(column_of(key) for key in ((axis,) if isinstance(axis, str) else axis))
    across = columns_across(frame, axes)
    rows = sweep_rows(frame, (*axes, *across), measure)
    measure = measure or main_measures(frame)[0]
    points = sweep_points(rows, axes, across)
    heads = list(dict.fromkeys(points["head"]))
    by_place = {(row["at"], row["head"]): row for row in records(points)}
    values = sorted(set(points["at"]), key=natural)
    body = [
        Row(
            tuple(axis_text(part) for part in at),
            tuple(measured(measure, by_place.get((at, head))) for head in heads),
        )
        for at in values
    ]
    evidence = Evidence(measure, windows, frame)
    if over_rows := axes == ("nominal_sparsity",) or "calibration_windows" in axes:
        body = [_mark_row(row, heads, evidence) for row in body]
    else:
        for index in range(len(heads)):
            body = mark_best(body, index, evidence)
    footnotes = (
        *notes.seed_note(points),
        *notes.protocol_notes(frame, [measure]),
        *notes.outlier_note(frame),
        *notes.gap_note(body),
    )
    return Table(
        name or "ablation-" + "-".join(axes).replace("_", "-"),
        f"{measure.title} over {' × '.join(axes)}".replace("_", " "),
        tuple(text.replace("_", " ") for text in axes),
        tuple(Column(group, label) for group, label in heads),
        (*_dense_block(rows, measure, points, len(axes)), Block("Pruned", tuple(body))),
        footnotes,
        notes.BEST_OF_ROW if over_rows else notes.BEST_OF_COLUMN,
    )


def columns_across(frame: pd.DataFrame, axes: Sequence[str]) -> tuple[str, ...]:
    """`calibration` and its size, if pruned runs differ in it and it is not what the axes vary."""
    pruned = frame[frame["pattern"] != DENSE]
    return tuple(
        column
        for column, varying in _CALIBRATION.items()
        if pruned[column].nunique() > 1 and varying.isdisjoint(axes)
    )


def sweep_rows(
    frame: pd.DataFrame, axes: Sequence[str], measure: Measure | None = None
) -> pd.DataFrame:
    """The rows of one measure that a sweep is made of, checked."""
    if unknown := sorted(set(axes) - set(frame.columns)):
        raise UserError(f"ablation: the results have no column {', '.join(unknown)}")
    measures = [measure] if measure else main_measures(frame)
    if not measures or measures[0].rows(frame).query("pattern != @DENSE").empty:
        raise UserError(f"ablation over {', '.join(axes)}: no pruned run has the metric")
    rows = measures[0].rows(with_variants(frame))
    refuse_mixed_protocols(rows, measures[0])
    return rows


def sweep_points(rows: pd.DataFrame, axes: Sequence[str], across: Sequence[str]) -> pd.DataFrame:
    """Means over seeds at each point of a sweep, in the order of models, patterns and methods.

    Columns of `over_seeds`, and `at`: the values of the axes; `head`: the texts of group
    (model, pattern, across) and method; `kind`: the pattern's title, without its sparsity if that
    is an axis.
    """
    pruned = rows[rows["pattern"] != DENSE]
    if "outlier_fraction" in axes:
        pruned = from_no_outliers(pruned)
    keys = list(dict.fromkeys(["model", "pattern", "method", *VARIANT_COLUMNS, *across, *axes]))
    shown_apart = {*axes, *across}
    found: list[dict[str, Any]] = []
    for row in records(over_seeds(pruned, keys)):
        pattern = pattern_label(row["pattern"])
        swept = "nominal_sparsity" in axes
        kind = pattern.family if swept else pattern.title
        group = ", ".join([row["model"], kind, *(_across_text(row, column) for column in across)])
        label = method_label(row, without=tuple(shown_apart))
        at = tuple(None if pd.isna(row[axis]) else row[axis] for axis in axes)
        place = (pattern.rank, 0.0 if swept else pattern.sparsity, pattern.group_size)
        apart = natural(tuple(None if pd.isna(row[column]) else row[column] for column in across))
        order = (row["model"], place, apart, method_rank(row))
        found.append({**row, "at": at, "head": (group, label), "kind": kind, "rank": order})
    found.sort(key=itemgetter("rank"))
    return pd.DataFrame(found)


def from_no_outliers(pruned: pd.DataFrame) -> pd.DataFrame:
    """The rows, those at α = 0 once per score that ranks the others: each line begins with them."""
    ranked = pruned[pruned["outlier_fraction"] > 0]
    method = ["model", "method", "label"]
    scores = ranked[[*method, "outlier_score"]].drop_duplicates()
    start = pruned.drop(index=ranked.index).drop(columns="outlier_score")
    start = start.merge(scores, how="left", on=method)
    return pd.concat([start.fillna({"outlier_score": "exact"}), ranked], ignore_index=True)


def _across_text(row: Mapping[str, Any], column: str) -> str:
    text = axis_text(row[column])
    return f"{text} windows" if column == "calibration_windows" else text


def axis_text(value: Any) -> str:
    """An axis value as a reader would write it."""
    if value is None or value == "" or (isinstance(value, float) and pd.isna(value)):
        return GAP
    return f"{value:.12g}" if isinstance(value, int | float) else str(value)


def natural(at: tuple[Any, ...]) -> tuple[Any, ...]:
    """Sort key for tuples of axis values: missing first, numbers by size, texts by letter."""
    return tuple(
        (0, 0.0, "") if v is None else (2, 0.0, v) if isinstance(v, str) else (1, v, "") for v in at
    )


def _mark_row(row: Row, heads: list[tuple[str, str]], evidence: Evidence) -> Row:
    """Mark the best cell of a row within each group of columns."""
    cells = list(row.cells)
    for group in dict.fromkeys(head[0] for head in heads):
        places = [index for index, head in enumerate(heads) if head[0] == group]
        turned = [Row((), (cells[index],)) for index in places]
        for index, marked in zip(places, mark_best(turned, 0, evidence), strict=True):
            cells[index] = marked.cells[0]
    return Row(row.labels, tuple(cells))


def _dense_block(
    rows: pd.DataFrame, measure: Measure, points: pd.DataFrame, stub_width: int
) -> tuple[Block, ...]:
    """The dense models' values, repeated under each of their columns."""
    dense = over_seeds(rows[rows["pattern"] == DENSE], ["model"]).set_index("model")
    if dense.empty:
        return ()
    models = points.drop_duplicates("head")["model"]
    cells = [
        measured(measure, dense.loc[model].to_dict()) if model in dense.index else Cell()
        for model in models
    ]
    return (Block("Dense", (Row(("dense", *[""] * (stub_width - 1)), tuple(cells)),)),)
