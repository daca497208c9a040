"""Footnotes of tables: sentences that follow from the data, so that none outlives its reason."""

from collections.abc import Iterable, Sequence

import pandas as pd

from thanos.reporting.evidence import SAME_SPARSITY
from thanos.reporting.grid import Row
from thanos.reporting.labels import pattern_label
from thanos.reporting.measures import CONFIDENCE, FROM_DENSE, Measure

BELOW_NOMINAL = "†"
BEST_OF_BLOCK = (
    "best of each block among those of the same sparsity, where the 95% interval of its difference "
    "to every other, on the same seeds or else on the same windows, leaves zero out"
)
BEST_OF_COLUMN = BEST_OF_BLOCK.replace("block", "column")
BEST_OF_ROW = BEST_OF_BLOCK.replace("block", "row")
_BESIDE_DENSE = (
    "Beside the dense model, per token on the windows of the perplexity: KL(dense ‖ model), and "
    "how often both find the same token the most likely."
)
_TIMES = "Wall time of the pruning stage, other jobs beside it; `snakemake timing` measures alone."


def seed_note(means: pd.DataFrame) -> list[str]:
    """What ± means, where any cell has more than one seed."""
    counts = sorted(int(count) for count in means["seeds"].unique())
    if not counts or counts[-1] == 1:
        return []
    several = [count for count in counts if count > 1]
    seeds = f"{several[0]} seeds" if len(several) == 1 else f"{several[0]} to {several[-1]} seeds"
    alone = "; cells without ± have one" if counts[0] == 1 else ""
    return [f"Mean ± {CONFIDENCE:.0%} interval (Student t) over {seeds}{alone}."]


def protocol_notes(frame: pd.DataFrame, measures: Iterable[Measure]) -> list[str]:
    """Window lengths of the perplexities and tasks of the accuracy."""
    notes = []
    for measure in measures:
        rows = measure.rows(frame)
        if measure.metric == "seconds":
            notes.append(_TIMES)
        if measure.metric == "perplexity":
            lengths = rows.groupby("model", sort=False)["context"].first().dropna()
            if lengths.empty:
                continue
            if lengths.nunique() == 1:
                text = f"{lengths.iloc[0]:.0f} tokens"
            else:
                each = (f"{length:.0f} ({model})" for model, length in lengths.items())
                text = f"as many tokens as the model's context: {', '.join(each)}"
            text += ", each from the begin-of-text token on" * bool(rows["add_bos"].any())
            notes.append(f"Perplexity of {measure.dataset}: windows of {text}.")
        elif measure.metric in FROM_DENSE:
            notes.append(_BESIDE_DENSE)
        elif measure.metric == "mean_acc":
            tasks = sorted(frame.loc[frame["metric"] == "acc", "dataset"].unique())
            notes.append(f"Accuracy: mean over {', '.join(tasks)}.")
    return list(dict.fromkeys(notes))


def sparsity_note(rows: Sequence[tuple[str, float, Row]]) -> list[str]:
    """Explain the dagger, for rows given as (pattern, α, row)."""
    marked = [(text, alpha) for text, alpha, row in rows if BELOW_NOMINAL in row.labels[-1]]
    if not marked:
        return []
    if any(alpha > 0 and pattern_label(text).kind == "n:m" for text, alpha in marked):
        return [
            f"{BELOW_NOMINAL} sparsity below nominal: with α > 0 the outlier rows of an n:m layer "
            "stay dense: the layer keeps more weights and is not a valid n:m tensor for hardware."
        ]
    return [f"{BELOW_NOMINAL} sparsity below nominal."]


def outlier_note(frame: pd.DataFrame) -> list[str]:
    """How far outlier rows lower the sparsity of n:m layers, where any runs have them."""
    reached = frame[(frame["metric"] == "sparsity") & (frame["outlier_fraction"] > 0)]
    kinds = reached["pattern"].map(lambda text: pattern_label(text).kind)
    below = reached[
        (kinds == "n:m") & (reached["value"] < reached["nominal_sparsity"] - SAME_SPARSITY)
    ]
    if below.empty:
        return []
    lowest = below.sort_values("value").iloc[0]
    return [
        "With α > 0 the outlier rows of an n:m layer stay dense: it is no valid n:m tensor for "
        f"hardware, and keeps more weights (sparsity {lowest['value']:.0%} at "
        f"α = {lowest['outlier_fraction']:g}, nominal {lowest['nominal_sparsity']:.0%})."
    ]


def mixed_note(frame: pd.DataFrame) -> list[str]:
    """What n:m means where sparsity is allocated over the layers of any model."""
    allocated = frame.loc[frame["allocation"] != "", "pattern"].unique()
    if not any(pattern_label(text).kind == "n:m" for text in allocated):
        return []
    return [
        "n:m with an allocation is mixed: layers may keep another n of the same m, n in the mean; "
        "not all of them are n:m tensors for hardware."
    ]


def gap_note(rows: Iterable[Row]) -> list[str]:
    """Explain the dash, where a cell is empty."""
    empty = any(cell.value is None for row in rows for cell in row.cells)
    return ["—: no result."] if empty else []


def published_note(sources: Iterable[str]) -> list[str]:
    """Where the published values are from."""
    names = "; ".join(sorted(set(sources)))
    if not names:
        return []
    return [f"Δ%: ours relative to the published value of the same window length, from {names}."]
