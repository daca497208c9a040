"""The timing table and figures, from rows with known numbers."""

import math

import pytest

from thanos.reporting.render import to_csv, to_markdown
from thanos.reporting.timing import BASELINE_LABELS, block_size_figure, timing_table, width_figure


def row(method: str, width: int, seconds: float, block_size: int = 128) -> dict[str, object]:
    return {
        "method": method,
        "rows": width,
        "columns": width,
        "pattern": "unstructured:0.5",
        "block_size": block_size,
        "seconds": seconds,
        "seconds_min": seconds * 0.9,
        "seconds_max": seconds * 1.2,
        "processor_seconds": seconds * 2,
        "repeats": 5,
        "peak_memory": 3 * 2**20,
        "relative_error": 0.1234,
        "pseudocode_ratio": 40 / seconds,
        "batched_ratio": None,
        "growth": 2.5,
    }


ROWS = [
    row(method, width, seconds * (width / 1024) ** 2.5)
    for method, seconds in (("thanos", 1.0), ("pseudocode-thanos", 40.0), ("sparsegpt", 0.5))
    for width in (1024, 2048)
]


def test_table_has_seconds_ratios_and_growth() -> None:
    table = timing_table(ROWS, "Times")
    text = to_markdown(table)
    line = next(line for line in text.splitlines() if line.startswith("| Thanos |"))
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "Thanos", "1.000", "0.900–1.200", "5", "2.000", "40.0", "—", "3", "0.1234",
    ]  # fmt: skip
    assert "1024 × 1024" in text
    assert "thanos 2.50" in text
    assert "40.0" in to_csv(table)


def test_baselines_follow_their_method() -> None:
    labels = [line.labels[0] for line in timing_table(ROWS, "Times").blocks[0].rows]
    assert labels.index("Thanos") + 1 == labels.index(BASELINE_LABELS["pseudocode-thanos"])


def test_unmeasured_ratios_are_gaps() -> None:
    bare = [{**ROWS[0], "pseudocode_ratio": math.nan}]
    assert "—" in to_markdown(timing_table(bare, "Times"))


def test_figure_over_the_width_draws_what_was_measured() -> None:
    (axes,) = width_figure(ROWS).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    drawn = {tuple(line.get_xdata()): None for line in axes.get_lines()}
    assert list(drawn) == [(1024, 2048)]
    seconds = sorted(float(line.get_ydata()[0]) for line in axes.get_lines())
    assert seconds == pytest.approx([0.5, 1.0, 40.0])
    assert block_size_figure(ROWS) is None


def test_figure_over_the_block_size() -> None:
    swept = [row("thanos", 1024, seconds, size) for size, seconds in ((8, 2.0), (64, 1.0))]
    (axes,) = block_size_figure(swept).axes
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [8, 64]
    assert list(line.get_ydata()) == [2.0, 1.0]
    assert width_figure(swept) is None


def test_figure_over_the_block_size_leaves_out_what_is_not_swept() -> None:
    swept = [row("thanos", 1024, 1.0 / size, size) for size in (8, 64)]
    (axes,) = block_size_figure([*swept, row("wanda", 1024, 0.1, 64)]).axes
    assert len(axes.get_lines()) == 1


def test_the_legend_lies_within_the_figure() -> None:
    methods = ("magnitude", "wanda", "sparsegpt", "thanos", *BASELINE_LABELS)
    rows = [row(method, 1024, 1.0, size) for method in methods for size in (8, 64)]
    figure = block_size_figure(rows)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert figure.bbox.containsx(legend.get_window_extent().x0)
    assert figure.bbox.containsx(legend.get_window_extent().x1)
