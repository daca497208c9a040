"""Every table says of every dense model whether it reproduces its published perplexity."""

from collections.abc import Callable
from pathlib import Path

import pytest
from results_folder import ResultsFolder

from thanos.reporting.published import read_published
from thanos.reporting.tables import main_table

PUBLISHED = """\
source,context,model,method,pattern,perplexity
Paper,2048,facebook/opt-125m,dense,dense,27.66
"""
OPT = {"path": "facebook/opt-125m", "corpus": "wikitext2", "seqlen": 2048}


@pytest.fixture
def gate(results: ResultsFolder, tmp_path: Path) -> Callable[..., list[str]]:
    """Return `gate(run, …)`: what a table of these runs says about the gate."""
    (tmp_path / "published.csv").write_text(PUBLISHED)
    published = read_published(tmp_path / "published.csv")

    def gate(*runs: dict) -> list[str]:
        frame = results.collect([results.run(**run) for run in runs]).results
        table = main_table(frame, published=published)
        return [note for note in table.footnotes if note.startswith("Dense gate")]

    return gate


def dense(model: str, perplexity: float, **setup: object) -> dict:
    return {
        "model": model, "pattern": "dense", "method": "dense", "perplexity": perplexity, **setup
    }  # fmt: skip


def test_a_model_within_the_tolerance_is_ok(gate: Callable[..., list[str]]) -> None:
    assert gate(dense("opt", 28.0, **OPT)) == [
        "Dense gate ok: opt has 28.00, published 27.66 (+1.2%, tolerance 2%, Paper)."
    ]


@pytest.mark.parametrize(("perplexity", "deviation"), [(30.0, "+8.5%"), (26.0, "-6.0%")])
def test_a_missed_gate_says_by_how_much(
    gate: Callable[..., list[str]], perplexity: float, deviation: str
) -> None:
    assert gate(dense("opt", perplexity, **OPT)) == [
        f"Dense gate missed: opt has {perplexity:.2f}, published 27.66 ({deviation}, tolerance 2%, "
        "Paper): do not compare its pruned rows with published ones."
    ]


def test_what_cannot_be_known_is_unknown_and_says_why(gate: Callable[..., list[str]]) -> None:
    setup = {"corpus": "wikitext2", "seqlen": 2048}
    pruned = {"model": "lonely", "method": "wanda", **setup}
    assert gate(dense("own", 9.0, **setup), pruned) == [
        "Dense gate unknown: lonely (no dense run among these results).",
        "Dense gate unknown: own (no published wikitext2 perplexity at 2048 tokens).",
    ]


def test_another_corpus_or_length_is_never_compared(gate: Callable[..., list[str]]) -> None:
    assert gate(dense("opt", 27.66, **{**OPT, "seqlen": 1024})) == [
        "Dense gate unknown: opt (no published wikitext2 perplexity at 1024 tokens)."
    ]
    assert gate(dense("opt", 27.66, **{**OPT, "corpus": "c4"})) == [
        "Dense gate unknown: opt (no published c4 perplexity at 2048 tokens)."
    ]
