"""What pruning costs and what it buys: tables of sizes and of latencies, beside the dense model."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from thanos.reporting import notes
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.labels import VARIANT_COLUMNS, method_label, method_rank, pattern_label
from thanos.reporting.measures import over_seeds, records, with_variants

_ROW_KEYS = ("model", "pattern", "method", *VARIANT_COLUMNS)
_MILLION, _MEBIBYTE = 1e6, 2.0**20


@dataclass(frozen=True)
class _Quantity:
    """A column: where its number is in the frame, and how it is shown."""

    column: Column
    metric: str
    unit: float = 1.0
    digits: str = ".2f"


_SIZES = (
    _Quantity(Column("Weights (million)", "all"), "size.parameters.total", _MILLION),
    _Quantity(Column("Weights (million)", "not zero"), "size.parameters.nonzero", _MILLION),
    _Quantity(Column("Weights (million)", "compact"), "efficiency.parameters.compact", _MILLION),
    _Quantity(Column("Checkpoint (MiB)", "dense"), "size.bytes.dense", _MEBIBYTE),
    _Quantity(Column("Checkpoint (MiB)", "packed"), "size.bytes.packed", _MEBIBYTE),
    _Quantity(Column("Checkpoint (MiB)", "compact"), "efficiency.bytes.compact", _MEBIBYTE),
    _Quantity(Column("Pruning", "seconds"), "seconds", digits=".1f"),
    _Quantity(Column("Pruning", "peak MiB"), "peak_memory_bytes", _MEBIBYTE, ".0f"),
)
SERVING = "efficiency.serving."
_SERVED = {
    "prefill": "Prefill: the time to the first token",
    "decode": "Decoding: the time of every further token",
}
_MODELS = ("dense", "pruned")
_TIMED = {"forward": "Forward pass (ms)", "decode": "Decoding (ms per token)"}


def efficiency_tables(frame: pd.DataFrame) -> list[Table]:
    """The tables `size` and `latency`, as far as the frame has what they show."""
    frame = with_variants(frame)
    tables = []
    if frame["metric"].str.startswith("size.").any():
        tables.append(_size_table(frame))
    if frame["metric"].str.startswith("efficiency.").any():
        tables.append(latency_table(frame))
        tables += serving_tables(frame)
    return tables


def _size_table(frame: pd.DataFrame) -> Table:
    found = _Found.of(frame, (quantity.metric for quantity in _SIZES))
    blocks = found.blocks(
        lambda key: tuple(
            _cell(found.value(key, quantity.metric), quantity.unit, quantity.digits)
            for quantity in _SIZES
        )
    )
    return Table(
        "size",
        "Size of the models and cost of pruning",
        ("Pattern", "Method"),
        tuple(quantity.column for quantity in _SIZES),
        blocks,
        (
            "Packed: values that are not zero and a bit per weight, without loss. Compact: pruned "
            "columns, and rows that nothing reads any more, removed (structured patterns only).",
            "Seconds and peak memory are of the whole pruning process, reading and writing "
            "included; jobs may have run side by side.",
            *notes.gap_note(row for block in blocks for row in block.rows),
        ),
    )


def latency_table(frame: pd.DataFrame) -> Table:
    """Milliseconds of dense and pruned models and the speed-up beside the ideal one.

    `frame` has metrics `efficiency.*`, as `thanos.stages.efficiency` measures them, and the
    columns of `with_variants`.
    """
    measured = frame[frame["metric"].str.startswith("efficiency.")]
    found = _Found.of(measured, measured["metric"].unique())

    def cells(key: tuple[Any, ...]) -> tuple[Cell, ...]:
        row: list[Cell] = []
        for part in _TIMED:

            def value(name: str, part: str = part) -> float | None:
                return found.value(key, f"efficiency.{part}.{name}")

            low, high = value("speedup_low"), value("speedup_high")
            spread = Cell() if low is None or high is None else Cell(f"{low:.2f}–{high:.2f}")
            row += [_cell(value("dense_ms")), _cell(value("pruned_ms")), _cell(value("speedup"))]
            row += [spread, _cell(value("ideal_speedup"))]
        return (*row, _cell(found.value(key, "efficiency.logits_difference"), digits=".0e"))

    blocks = found.blocks(cells)
    names = ("dense", "pruned", "speed-up", "range", "ideal")
    return Table(
        "latency",
        "Latency of the pruned models beside the dense ones",
        ("Pattern", "Method"),
        (
            *(Column(title, name) for title in _TIMED.values() for name in names),
            Column("Logits", "difference"),
        ),
        blocks,
        (
            f"Pruned models run in this form: {', '.join(sorted(set(measured['source'])))}.",
            "Dense and pruned alternate in one process, and no other job of the workflow runs "
            "beside it; medians, and the speed-up's range over rounds. A wide range means that "
            "other work on the machine disturbed them.",
            "Ideal: ratio of the multiplications in the linear layers, head included. Logits: "
            "largest difference between this form and the zero-filled model.",
        ),
    )


def serving_tables(frame: pd.DataFrame) -> list[Table]:
    """Prefill and decoding of dense and pruned models by batch and prompt, where it was measured.

    `frame` is as for `latency_table`.
    """
    measured = frame[frame["metric"].str.startswith(SERVING)]
    found = _Found.of(measured, measured["metric"].unique())
    points = serving_points(measured)
    return [_serving_table(found, points, part) for part in (_SERVED if points else ())]


def serving_points(frame: pd.DataFrame) -> list[tuple[int, int]]:
    """Batches and prompts, in that order, that serving was measured with."""
    names = frame["metric"].str.extract(rf"^{re.escape(SERVING)}(\d+)x(\d+)\.").dropna()
    return sorted({(int(batch), int(prompt)) for batch, prompt in names.to_numpy()})


def _serving_table(found: "_Found", points: list[tuple[int, int]], part: str) -> Table:
    def rows(key: tuple[Any, ...]) -> Iterator[tuple[tuple[str, ...], tuple[Cell, ...]]]:
        for batch, prompt in points:
            at = f"{SERVING}{batch}x{prompt}."

            def value(name: str, at: str = at) -> float | None:
                return found.value(key, f"{at}{name}")

            if value(f"{part}.dense_ms") is None:
                continue
            low, high = value(f"{part}.speedup_low"), value(f"{part}.speedup_high")
            cells = [_cell(value(f"{part}.{name}_ms")) for name in _MODELS]
            cells += [_cell(value(f"{part}.speedup")), Cell(f"{low:.2f}–{high:.2f}")]
            cells += [
                _cell(value(f"{part}.{name}_tokens_per_second"), digits=".0f") for name in _MODELS
            ]
            cells += [_cell(value(f"{part}.{name}_limit_ms")) for name in _MODELS]
            cells += [_cell(value(f"{name}_peak_bytes"), _MEBIBYTE, ".0f") for name in _MODELS]
            yield (f"{batch} × {prompt}",), tuple(cells)

    groups = ("Milliseconds", "Tokens per second", "Limit (ms)", "Peak memory (MiB)")
    times, *others = ([Column(group, name) for name in _MODELS] for group in groups)
    speedup = [Column("Speed-up", "median"), Column("Speed-up", "range")]
    return Table(
        part,
        _SERVED[part],
        ("Pattern", "Method", "Batch × prompt"),
        (*times, *speedup, *(column for group in others for column in group)),
        found.blocks_of(rows),
        (
            "Dense and pruned alternate in one process; medians of rounds.",
            "Limit: the least time that the machine's largest rate of products, or of bytes read, "
            "both measured beside it, allows for the products with weights alone.",
            "Peak memory: the model and what serving it takes besides.",
        ),
    )


@dataclass(frozen=True)
class _Found:
    """Means over seeds by row key and metric, and the runs of each row."""

    values: dict[tuple[tuple[Any, ...], str], float]
    runs: dict[tuple[Any, ...], dict[str, None]]

    @classmethod
    def of(cls, frame: pd.DataFrame, metrics: Iterable[str]) -> "_Found":
        values, runs = {}, defaultdict[tuple[Any, ...], dict[str, None]](dict)
        for metric in metrics:
            means = over_seeds(frame[frame["metric"] == metric], list(_ROW_KEYS))
            for row in records(means):
                key = tuple(row[name] for name in _ROW_KEYS)
                values[key, metric] = row["mean"]
                runs[key] |= dict.fromkeys(seen.run for seen in row["observations"])
        return cls(values, runs)

    def value(self, key: tuple[Any, ...], metric: str) -> float | None:
        return self.values.get((key, metric))

    def blocks(self, cells: Callable[[tuple[Any, ...]], tuple[Cell, ...]]) -> tuple[Block, ...]:
        """A block per model; a row per pattern and method, in their order."""
        return self.blocks_of(lambda key: [((), cells(key))])

    def blocks_of(
        self, rows: Callable[[tuple[Any, ...]], Iterable[tuple[tuple[str, ...], tuple[Cell, ...]]]]
    ) -> tuple[Block, ...]:
        """A block per model; rows, each with further labels, per pattern and method."""
        keys = sorted({key for key, _ in self.values}, key=_order)
        return tuple(
            Block(
                model,
                tuple(
                    Row((*_labels(key), *labels), cells).of_runs(self.runs[key])
                    for key in keys
                    if key[0] == model
                    for labels, cells in rows(key)
                ),
            )
            for model in dict.fromkeys(key[0] for key in keys)
        )


def _labels(key: tuple[Any, ...]) -> tuple[str, str]:
    return pattern_label(key[1]).title, method_label(_named(key))


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    return key[0], pattern_label(key[1]), method_rank(_named(key))


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(_ROW_KEYS, key, strict=True))


def _cell(value: float | None, unit: float = 1.0, digits: str = ".2f") -> Cell:
    return Cell() if value is None else Cell(f"{value / unit:{digits}}", value / unit)
