"""The paper's main table: every method under every pattern, for every model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thanos.errors import UserError
from thanos.reporting import notes
from thanos.reporting.evidence import SAME_SPARSITY, Evidence
from thanos.reporting.gate import accuracy_notes, gate_notes
from thanos.reporting.grid import Block, Cell, Column, Row, Table, mark_best, measured
from thanos.reporting.labels import (
    VARIANT_COLUMNS,
    method_label,
    method_rank,
    pattern_label,
    variant_options,
)
from thanos.reporting.measures import (
    Measure,
    main_measures,
    only_pruned,
    over_seeds,
    records,
    refuse_mixed_protocols,
    task_measures,
    with_variants,
)
from thanos.reporting.published import PublishedTable, is_wikitext2

MOST_COLUMNS = 8
_ROW_KEYS = ("pattern", "method", *VARIANT_COLUMNS)
_Key = tuple[Any, ...]  # values of _ROW_KEYS


@dataclass(frozen=True)
class _Filled:
    """A column with its cells, one per row key; with evidence its best values are marked."""

    column: Column
    cells: list[Cell]
    evidence: Evidence | None = None


def main_table(
    frame: pd.DataFrame,
    measures: Sequence[Measure] | None = None,
    published: PublishedTable | None = None,
    *,
    windows: pd.DataFrame | None = None,
    name: str = "main",
    title: str = "Pruned models by pattern and method",
) -> Table:
    """Blocks by pattern, rows by method and variant, a column per measure and model.

    Means over seeds; the best of each block is marked where the evidence supports it, for which a
    single seed needs `windows`, of `collect`. With `published`, a WikiText-2 column that
    has published values of the same window length is followed by them and by our difference, and
    notes say of every dense model whether it meets its published perplexity within the gate's
    tolerance. Raises UserError where results that are not comparable would share a cell or column.
    """
    frame = with_variants(frame)
    measures = list(measures or main_measures(frame) or task_measures(frame))
    if not measures:
        raise UserError(f"table {name!r}: the results have neither perplexity nor a task's metric")
    keys = sorted({_key(row) for row in records(frame)}, key=_row_order)
    columns: list[_Filled] = []
    means, sources = [], []
    for measure in measures:
        rows = measure.rows(frame)
        refuse_mixed_protocols(rows, measure)
        means.append(over_seeds(rows, ["model", *_ROW_KEYS]))
        evidence = Evidence(measure, windows, frame)
        for model in dict.fromkeys(frame["model"]):
            ours = {_key(row): row for row in records(means[-1]) if row["model"] == model}
            cells = [measured(measure, ours.get(key)) for key in keys]
            columns.append(_Filled(Column(measure.title, model), cells, evidence))
            if published and measure.metric == "perplexity" and is_wikitext2(measure.dataset):
                theirs = _Comparison(published, rows[rows["model"] == model], measure)
                columns += theirs.columns(keys, cells)
                sources += theirs.sources(keys)
    sparsity = _reached_sparsity(frame)
    rows_out = [
        Row((method_label(_named(key)), sparsity.get(key, "")), tuple(c.cells[i] for c in columns))
        for i, key in enumerate(keys)
    ]
    footnotes = [
        *(gate_notes(frame, measures, published) if published else []),
        *(accuracy_notes(frame, published) if published and _has_accuracies(measures) else []),
        *notes.seed_note(pd.concat(means)),
        *notes.protocol_notes(frame, measures),
        *notes.sparsity_note(
            [
                (key[0], _named(key)["outlier_fraction"], row)
                for key, row in zip(keys, rows_out, strict=True)
            ]
        ),
        *notes.mixed_note(frame),
        *notes.published_note(sources),
        *notes.gap_note(rows_out),
    ]
    return Table(
        name,
        title,
        ("Method", "Sparsity"),
        tuple(filled.column for filled in columns),
        _blocks(keys, rows_out, columns),
        tuple(footnotes),
        notes.BEST_OF_BLOCK,
    )


def main_tables(
    frame: pd.DataFrame,
    published: PublishedTable | None = None,
    windows: pd.DataFrame | None = None,
) -> list[Table]:
    """The main table, or one per measure (`main-<metric>-<dataset>`) where it would be too wide."""
    measures = main_measures(frame) or task_measures(frame)
    if len(measures) * frame["model"].nunique() <= MOST_COLUMNS:
        return [main_table(frame, measures, published, windows=windows)]
    return [
        main_table(
            frame,
            [measure],
            published,
            windows=windows,
            name=f"main-{measure.metric}-{measure.dataset}",
            title=f"Pruned models by pattern and method: {measure.title}",
        )
        for measure in measures
    ]


@dataclass(frozen=True)
class _Comparison:
    """Published values for one model's column; `rows` are our results of it."""

    published: PublishedTable
    rows: pd.DataFrame
    measure: Measure

    def find(self, key: _Key) -> Any:
        if self.rows.empty or len(only_pruned(self.rows)) < len(self.rows):
            return None
        first = self.rows.iloc[0]
        pattern, method, alpha, *_ = key
        if variant_options(_named(key), without=("outlier_fraction",)):
            return None  # published programs have none of them
        return self.published.find(
            first["model"], first["model_path"], first["context"], pattern, method, alpha
        )

    def columns(self, keys: list[_Key], ours: list[Cell]) -> list[_Filled]:
        theirs = [self.find(key) for key in keys]
        if not any(theirs):
            return []
        values, differences = [], []
        for cell, value in zip(ours, theirs, strict=True):
            values.append(
                Cell(self.measure.text(value.perplexity), value.perplexity) if value else Cell()
            )
            if value is None or cell.value is None:
                differences.append(Cell())
            else:
                percent = 100 * (cell.value / value.perplexity - 1)
                text = f"{percent:+.1f}"
                differences.append(Cell(text, percent, observations=cell.observations))
        model = self.rows.iloc[0]["model"]
        return [
            _Filled(Column(self.measure.title, f"{model} published"), values),
            _Filled(Column(self.measure.title, f"{model} Δ%"), differences),
        ]

    def sources(self, keys: list[_Key]) -> list[str]:
        return [value.source for value in map(self.find, keys) if value]


def _blocks(keys: list[_Key], rows: list[Row], columns: list[_Filled]) -> tuple[Block, ...]:
    blocks = []
    for pattern in dict.fromkeys(key[0] for key in keys):
        block = [row for key, row in zip(keys, rows, strict=True) if key[0] == pattern]
        for index, filled in enumerate(columns):
            if filled.evidence:
                block = mark_best(block, index, filled.evidence)
        blocks.append(Block(pattern_label(pattern).title, tuple(block)))
    return tuple(blocks)


def _has_accuracies(measures: Iterable[Measure]) -> bool:
    return any(measure.metric == "mean_acc" for measure in measures)


def _reached_sparsity(frame: pd.DataFrame) -> dict[_Key, str]:
    """The sparsity that each row's runs have, as a range where models differ; † below nominal."""
    texts = {}
    rows = frame[frame["metric"] == "sparsity"]
    for values, group in rows.groupby(list(_ROW_KEYS), sort=False):
        low, high = (f"{100 * value:.1f}" for value in (group["value"].min(), group["value"].max()))
        below = group["value"].min() < pattern_label(str(values[0])).sparsity - SAME_SPARSITY
        mark = f" {notes.BELOW_NOMINAL}" if below else ""
        texts[tuple(values)] = f"{low if low == high else f'{low}–{high}'}%{mark}"
    return texts


def _key(row: dict[Any, Any]) -> _Key:
    return tuple(row[column] for column in _ROW_KEYS)


def _named(key: Iterable[Any]) -> dict[str, Any]:
    return dict(zip(_ROW_KEYS, key, strict=True))


def _row_order(key: _Key) -> tuple[Any, ...]:
    return pattern_label(key[0]), method_rank(_named(key))
