"""Every table says of every dense model whether it reproduces its published perplexity."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from results_folder import ResultsFolder

from thanos.artifacts import read_json, write_json
from thanos.errors import UserError
from thanos.reporting.gate import accuracy_notes
from thanos.reporting.published import read_published
from thanos.reporting.tables import main_table

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ACCURACY_FILE = "published_accuracy.csv"
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


ACCURACIES = """\
source,model,task,metric,questions,accuracy,tolerance
Card,someone/Small,arc_easy,acc,2376,54.0,1
Card,someone/Small,piqa,acc_norm,1838,67.0,1
Card before rounding,small-q4,piqa,acc_norm,1838,67.0,3
"""


@pytest.fixture
def accuracies(tmp_path: Path) -> Callable[..., list[str]]:
    """Return `accuracies(row, …)`: what the gate says of (model, path, task, metric, value, n)."""
    (tmp_path / "perplexities.csv").write_text(PUBLISHED)
    (tmp_path / "accuracies.csv").write_text(ACCURACIES)
    published = read_published(tmp_path / "perplexities.csv", tmp_path / "accuracies.csv")
    names = ["model", "model_path", "dataset", "metric", "value", "n"]

    def accuracies(*rows: tuple) -> list[str]:
        frame = pd.DataFrame(rows, columns=names)
        frame = frame.assign(pattern="dense", quantization="none", recovery="")
        return accuracy_notes(frame, published)

    return accuracies


@pytest.mark.parametrize(("value", "verdict"), [(54.9, "ok"), (53.1, "ok"), (55.1, "missed")])
def test_on_all_questions_the_tolerance_is_the_published_row_s(
    accuracies: Callable[..., list[str]], value: float, verdict: str
) -> None:
    (note,) = accuracies(("mine", "/copies/Small", "arc_easy", "acc", value, 2376))
    assert note.startswith(
        f"Dense gate {verdict}: mine has arc_easy acc {value}%, published 54.0% "
        f"({value - 54:+.1f} points; tolerance 1; Card)"
    )
    assert ("do not compare" in note) == (verdict == "missed")


@pytest.mark.parametrize(("value", "verdict"), [(62.0, "ok"), (60.0, "ok"), (56.0, "missed")])
def test_on_some_questions_chance_comes_on_top(
    accuracies: Callable[..., list[str]], value: float, verdict: str
) -> None:
    (note,) = accuracies(("x", "someone/small", "piqa", "acc_norm", value, 100))
    error = 100 * (value / 100 * (1 - value / 100) / 100) ** 0.5
    assert f"Dense gate {verdict}: " in note
    assert f"100 of 1838 questions, tolerance 1 and twice {error:.1f}" in note


def test_a_copy_of_other_weights_has_a_tolerance_of_its_own(
    accuracies: Callable[..., list[str]],
) -> None:
    row = ("piqa", "acc_norm", 64.5, 1838)
    (rounded,) = accuracies(("small-q4", "wheel/Small.Q4.gguf", *row))
    assert rounded.startswith("Dense gate ok")
    (same,) = accuracies(("mine", "someone/small", *row))
    assert same.startswith("Dense gate missed")


def test_accuracies_without_a_published_one_say_nothing(
    accuracies: Callable[..., list[str]],
) -> None:
    assert not accuracies(
        ("x", "someone/small", "piqa", "acc", 10.0, 1838),  # another metric
        ("x", "someone/small", "boolq", "acc", 10.0, 3270),
        ("x", "someone/large", "piqa", "acc_norm", 10.0, 1838),
    )


def test_a_run_s_normalised_accuracy_reaches_the_gate(results: ResultsFolder) -> None:
    runs = [results.run(**dense("smollm2-135m-q4", 9.0), acc=40.0)]
    file = results.file(runs[0], "evaluations")
    record = read_json(file)
    record["tasks"] = {"piqa": {**record["tasks"]["docs_choice"], "acc_norm": 66.0}}
    write_json(file, record)
    published = read_published(REFERENCE / "published_perplexity.csv", REFERENCE / ACCURACY_FILE)
    table = main_table(results.collect(runs).results, published=published)
    found = [note for note in table.footnotes if "piqa acc_norm 66.0%" in note]
    assert [note.partition(":")[0] for note in found] == ["Dense gate ok"]


def test_a_damaged_file_of_accuracies_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "perplexities.csv").write_text(PUBLISHED)
    (tmp_path / "accuracies.csv").write_text(ACCURACIES.replace("67.0,1\n", "much,1\n"))
    with pytest.raises(UserError, match=r"accuracies\.csv, line 3: "):
        read_published(tmp_path / "perplexities.csv", tmp_path / "accuracies.csv")
