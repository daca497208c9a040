"""Paired differences: every method against the reference, on the same seeds and windows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from thanos.reporting import notes
from thanos.reporting.ablations import (
    axis_text,
    columns_across,
    natural,
    sweep_points,
    sweep_rows,
)
from thanos.reporting.evidence import Difference, Evidence
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import (
    DENSE,
    METHOD_NAMES,
    VARIANT_COLUMNS,
    column_of,
    method_label,
    method_rank,
    pattern_label,
)
from thanos.reporting.measures import (
    CONFIDENCE,
    Measure,
    Observation,
    main_measures,
    over_seeds,
    records,
    with_variants,
)

REFERENCE = "thanos"
_SUPPORTED = "the interval leaves zero out"
_Key = tuple[Any, ...]


def difference_tables(
    frame: pd.DataFrame, windows: pd.DataFrame | None = None, axes: Sequence[str] = ()
) -> list[Table]:
    """A table per perplexity, where there is a reference and something to compare with it.

    Cells are percent of the reference's perplexity: positive where the other method is worse.
    Without `axes` the rows are methods within patterns and the columns models; with them the rows
    are the values of the axes and the columns methods within patterns, each against the reference
    with the same outlier rows.
    """
    tables = []
    for measure in main_measures(frame):
        if measure.metric == "perplexity":
            evidence = Evidence(measure, windows)
            table = _over_axes(frame, evidence, axes) if axes else _by_pattern(frame, evidence)
            tables += [table] if table else []
    return tables


def _by_pattern(frame: pd.DataFrame, evidence: Evidence) -> Table | None:
    rows = evidence.measure.rows(with_variants(frame))
    keys = ("pattern", "method", *VARIANT_COLUMNS)
    means = records(over_seeds(rows[rows["pattern"] != DENSE], ["model", *keys]))
    seen = {(row["model"], *(row[key] for key in keys)): row["observations"] for row in means}
    models = list(dict.fromkeys(row["model"] for row in means))
    blocks = []
    for pattern in sorted({row["pattern"] for row in means}, key=pattern_label):
        methods = {key[2:]: None for key in seen if key[1] == pattern}
        named = [dict(zip(keys[1:], method, strict=True)) for method in methods]
        body = []
        for row in sorted(named, key=method_rank):
            if _is_reference(row):
                continue
            others = [seen.get((model, pattern, *row.values())) for model in models]
            references = [_reference_of(seen, model, pattern, keys) for model in models]
            cells = map(_cell, [evidence] * len(models), others, references)
            body.append(Row((method_label(row),), tuple(cells)))
        if any(cell.value is not None for row in body for cell in row.cells):
            blocks.append(Block(pattern_label(pattern).title, tuple(body)))
    columns = tuple(Column(_heading(evidence.measure), model) for model in models)
    return _table(("Method",), columns, blocks, evidence, notes.outlier_note(with_variants(frame)))


def _over_axes(frame: pd.DataFrame, evidence: Evidence, keys: Sequence[str]) -> Table | None:
    axes = tuple(column_of(key) for key in keys)
    across = columns_across(frame, axes)
    points = sweep_points(sweep_rows(frame, (*axes, *across), evidence.measure), axes, across)
    seen = {(row["at"], row["head"]): row["observations"] for row in records(points)}
    plain = METHOD_NAMES[REFERENCE]
    references_of: dict[tuple[str, str], tuple[str, str]] = {}
    for head, score in zip(points["head"], points["outlier_score"], strict=True):
        same_rows = method_label({"method": REFERENCE, "outlier_score": score}, without=axes)
        compared = same_rows if same_rows != head[1] else plain
        if head[1] != plain and _group_has(seen, (head[0], compared)):
            references_of[head] = (head[0], compared)
    heads = list(references_of)
    body = []
    for at in sorted(set(points["at"]), key=natural):
        references = [seen.get((at, reference)) for reference in references_of.values()]
        others = [seen.get((at, head)) for head in heads]
        cells = tuple(map(_cell, [evidence] * len(heads), others, references))
        body.append(Row(tuple(map(axis_text, at)), cells))
    stub = tuple(text.replace("_", " ") for text in axes)
    columns = tuple(Column(group, label) for group, label in heads)
    blocks = [Block(_heading(evidence.measure), tuple(body))]
    return _table(stub, columns, blocks, evidence, notes.outlier_note(frame))


def _table(
    stub: tuple[str, ...],
    columns: tuple[Column, ...],
    blocks: list[Block],
    evidence: Evidence,
    footnotes: list[str],
) -> Table | None:
    cells = [cell for block in blocks for row in block.rows for cell in row.cells]
    if not any(cell.value is not None for cell in cells):
        return None
    reference = METHOD_NAMES[REFERENCE]
    note = (
        f"Difference of {evidence.measure.dataset} perplexity to that of {reference}, in percent "
        f"of it: positive is worse than {reference}. ± is the {CONFIDENCE:.0%} interval (Student "
        "t) over seeds where several are shared, otherwise over the evaluation windows."
    )
    return Table(
        f"differences-{evidence.measure.dataset}",
        f"Paired differences to {reference}",
        stub,
        columns,
        tuple(blocks),
        (note, *footnotes),
        _SUPPORTED,
    )


def _cell(
    evidence: Evidence,
    other: Sequence[Observation] | None,
    reference: Sequence[Observation] | None,
) -> Cell:
    found: Difference | None = None
    if other is not None and reference is not None:
        found = evidence.difference(other, reference)
    if found is None or other is None or reference is None:
        return Cell()
    observed = (*other, *reference)
    ratio = math.exp(found.mean)
    percent = 100 * (ratio - 1)
    if math.isnan(found.half_width):
        return Cell(f"{percent:+.2f}", percent, observations=observed)
    half_width = 100 * ratio * found.half_width
    interval = f"{half_width:.2f}"
    return Cell(f"{percent:+.2f}", percent, interval, half_width, found.supported, observed)


def _reference_of(
    seen: Mapping[_Key, Any], model: str, pattern: str, keys: Sequence[str]
) -> Sequence[Observation] | None:
    of_place = (key for key in seen if key[:2] == (model, pattern))
    named = ((key, dict(zip(keys[1:], key[2:], strict=True))) for key in of_place)
    return next((seen[key] for key, row in named if _is_reference(row)), None)


def _is_reference(row: Mapping[str, Any]) -> bool:
    return method_label(row) == METHOD_NAMES[REFERENCE]


def _group_has(seen: Iterable[_Key], reference: tuple[str, str]) -> bool:
    return any(head == reference for _, head in seen)


def _heading(measure: Measure) -> str:
    return f"{measure.dataset} perplexity (%)"
