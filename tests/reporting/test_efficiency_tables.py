"""Tables of sizes and latencies, from result files as the stages write them."""

import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.reporting.efficiency import efficiency_tables
from thanos.reporting.latex import to_latex
from thanos.reporting.render import to_csv, to_markdown, to_terminal
from thanos.reporting.serving import serving_figure

TIMES = {
    "dense_ms": 40.0, "pruned_ms": 32.0, "speedup": 1.25, "speedup_low": 1.2,
    "speedup_high": 1.3, "ideal_speedup": 1.4,
}  # fmt: skip


@pytest.fixture
def runs(results: ResultsFolder) -> list[Run]:
    """Dense, 2:4, and structured with latencies."""
    latency = {
        "form": "compact", "device": "cpu", "logits_difference": 2e-6,
        "parameters": {"compact": 2_500_000}, "bytes": {"compact": 5 * 2**20}, "forward": TIMES,
        "decode": {**TIMES, "dense_ms": 2.0, "pruned_ms": 2.5, "speedup": 0.8},
    }  # fmt: skip
    return [
        results.run(pattern="dense", method="dense", size=size(4, 8.0)),
        results.run(pattern="2:4", size=size(2, 4.5)),
        results.run(pattern="structured:0.3", alpha=0.1, size=size(3, 6.5), latency=latency),
    ]


def size(nonzero: int, packed: float) -> dict:
    return {
        "parameters": {"total": 4_000_000, "nonzero": nonzero * 1_000_000},
        "bytes": {"dense": 8 * 2**20, "packed": int(packed * 2**20)},
    }


def test_sizes_of_all_and_latencies_of_those_that_have_them(
    runs: list[Run], results: ResultsFolder
) -> None:
    size, latency = efficiency_tables(results.collect(runs).results)
    lines = to_markdown(size).splitlines()
    assert "| Dense | Dense | 4.00 | 4.00 | — | 8.00 | 8.00 | — | — | — |" in lines
    assert "| 2:4 | Thanos | 4.00 | 2.00 | — | 8.00 | 4.50 | — | 3.5 | 118 |" in lines
    compact = "| Structured 30% | Thanos (α=0.1) | 4.00 | 3.00 | 2.50 | 8.00 | 6.50 | 5.00 | 3.5 |"
    assert any(line.startswith(compact) for line in lines)
    lines = to_markdown(latency).splitlines()
    assert (
        "| Structured 30% | Thanos (α=0.1) | 40.00 | 32.00 | 1.25 | 1.20–1.30 | 1.40 "
        "| 2.00 | 2.50 | 0.80 | 1.20–1.30 | 1.40 | 2e-06 |"
    ) in lines
    assert not any("2:4" in line for line in lines)
    assert latency.footnotes[0] == "Pruned models run in this form: compact on cpu."


SERVED = {
    **{f"{name}_tokens_per_second": x for name, x in (("dense", 100.0), ("pruned", 125.0))},
    **{"dense_limit_ms": 10.0, "pruned_limit_ms": 7.0},
}


@pytest.fixture
def served(results: ResultsFolder) -> list[Run]:
    """Two methods whose serving was measured with two batches, one of them twice as slow."""

    def latency(slower: float) -> dict:
        times = {**TIMES, **SERVED, "dense_ms": 40.0 * slower, "pruned_ms": 32.0 * slower}
        serving = {
            f"{batch}x128": {
                **{"batch": batch, "prompt_tokens": 128, "prefill": times, "decode": times},
                **{"dense_peak_bytes": 8 * 2**20, "pruned_peak_bytes": 6 * 2**20},
            }
            for batch in (8, 1)
        }
        form = {"form": "narrow", "device": "cpu", "forward": TIMES, "decode": TIMES}
        return {**form, "logits_difference": 2e-6, "serving": serving}

    pattern = "heads-neurons:0.3"
    return [
        results.run(pattern=pattern, method=method, latency=latency(slower))
        for method, slower in (("thanos", 1.0), ("wanda", 2.0))
    ]


def test_serving_by_batch_and_prompt(served: list[Run], results: ResultsFolder) -> None:
    tables = {t.name: t for t in efficiency_tables(results.collect(served).results)}
    assert list(tables) == ["latency", "prefill", "decode"]
    lines = to_markdown(tables["decode"]).splitlines()
    rows = [line for line in lines if line.startswith("| Heads and neurons 30%")]
    assert [row.split(" | ")[1:3] for row in rows] == [
        [method, point] for method in ("Wanda", "Thanos") for point in ("1 × 128", "8 × 128")
    ]
    assert rows[-1] == (
        "| Heads and neurons 30% | Thanos | 8 × 128 | 40.00 | 32.00 | 1.25 | 1.20–1.30 "
        "| 100 | 125 | 10.00 | 7.00 | 8 | 6 |"
    )


def test_the_figure_of_serving(served: list[Run], results: ResultsFolder) -> None:
    frame = results.collect(served).results
    figure = serving_figure(frame, served[0].columns["model"], "heads-neurons:0.3")
    for axes in figure.axes:
        heights = [round(bar.get_height()) for bar in axes.patches]
        assert heights == [100, 100, 125, 125, 125, 125]  # dense, then each method, at two points
        limits = [line.get_ydata()[0] for line in axes.lines]
        assert limits[2:] == pytest.approx([125 * 64 / 7] * 2 + [125 * 32 / 7] * 2)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1 × 128", "8 × 128"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Dense", "Wanda", "Thanos", "Machine's limit"]


def test_they_render_in_every_form(runs: list[Run], results: ResultsFolder) -> None:
    for table in efficiency_tables(results.collect(runs).results):
        assert max(map(len, to_terminal(table).splitlines())) <= 80
        assert to_latex(table).count(r"\begin{tabular}") >= 1
        assert "Structured 30%" in to_csv(table)


def test_without_such_results_there_are_no_tables(results: ResultsFolder) -> None:
    assert efficiency_tables(results.collect([results.run()]).results) == []
