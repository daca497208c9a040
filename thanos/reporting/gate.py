"""The dense gate: whether our dense models reproduce published perplexities and accuracies."""

import math
from collections.abc import Iterable

import pandas as pd

from thanos.reporting.labels import DENSE
from thanos.reporting.measures import Measure, only_pruned, records
from thanos.reporting.published import PublishedTable, is_wikitext2

GATE_TOLERANCE = 0.02


def gate_notes(
    frame: pd.DataFrame, measures: Iterable[Measure], published: PublishedTable
) -> list[str]:
    """Sentences that say for every model: missed (by how much), ok, or unknown (why).

    A model whose dense perplexity is off by more than the tolerance is missed. Published values are
    WikiText-2's and hold for one window length, so another corpus or length is unknown.
    """
    missed: list[str] = []
    passed: list[str] = []
    unknown: dict[str, list[str]] = {}  # models by reason
    for measure in measures:
        if measure.metric != "perplexity":
            continue
        rows = measure.rows(frame)
        rows = only_pruned(rows)
        for model in dict.fromkeys(rows["model"]):
            dense = rows[(rows["model"] == model) & (rows["pattern"] == DENSE)]
            if dense.empty:
                unknown.setdefault("no dense run among these results", []).append(model)
                continue
            first = dense.iloc[0]
            value = None
            if is_wikitext2(measure.dataset):
                value = published.find(
                    model, first["model_path"], first["context"], DENSE, DENSE, 0.0
                )
            if value is None:
                reason = f"no published {measure.dataset} perplexity"
                if not pd.isna(first["context"]):
                    reason += f" at {first['context']:.0f} tokens"
                unknown.setdefault(reason, []).append(model)
                continue
            deviation = first["value"] / value.perplexity - 1
            text = (
                f"{model} has {first['value']:.2f}, published {value.perplexity:.2f} "
                f"({deviation:+.1%}, tolerance {GATE_TOLERANCE:.0%}, {value.source})"
            )
            (passed if abs(deviation) <= GATE_TOLERANCE else missed).append(text)
    return [
        *(
            f"Dense gate missed: {text}: do not compare its pruned rows with published ones."
            for text in missed
        ),
        *(f"Dense gate ok: {text}." for text in passed),
        *(
            f"Dense gate unknown: {', '.join(models)} ({reason})."
            for reason, models in unknown.items()
        ),
    ]


def accuracy_notes(frame: pd.DataFrame, published: PublishedTable) -> list[str]:
    """Sentences that say of every published accuracy of a dense model: missed, or ok.

    Its tolerance is for all questions of the split, where kernels and harness versions change some
    answers, and for a copy of other weights what they change. On a part of the questions chance
    comes on top: two standard errors.
    """
    notes = []
    dense = only_pruned(frame[frame["pattern"] == DENSE])
    scored = dense[dense["metric"].isin(["acc", "acc_norm"])]
    for row in records(scored.drop_duplicates(["model", "dataset", "metric"])):
        value = published.accuracy(row["model"], row["model_path"], row["dataset"])
        if value is None or value.metric != row["metric"]:
            continue
        asked, allowed = int(row["n"]), value.tolerance
        text = f"tolerance {value.tolerance:g}"
        if asked < value.questions:
            share = min(max(row["value"] / 100, 1 / asked), 1 - 1 / asked)
            error = 100 * math.sqrt(share * (1 - share) / asked)
            allowed += 2 * error
            text = f"{asked} of {value.questions} questions, {text} and twice {error:.1f}"
        difference = row["value"] - value.accuracy
        missed = abs(difference) > allowed
        notes.append(
            f"Dense gate {'missed' if missed else 'ok'}: {row['model']} has {row['dataset']} "
            f"{value.metric} {row['value']:.1f}%, published {value.accuracy:.1f}% "
            f"({difference:+.1f} points; {text}; {value.source})"
            + (": do not compare its accuracies with published ones." if missed else ".")
        )
    return notes
