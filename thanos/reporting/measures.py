"""What is measured: title, direction and number format of each metric; means over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # the t quantile; scipy.stats would double the start-up time

from thanos.errors import UserError
from thanos.reporting.cells import CONDITIONS, DENSE_CONDITIONS, remedy_of
from thanos.reporting.labels import DENSE, own_label

CONFIDENCE = 0.95
_TITLES = {
    "perplexity": "perplexity",
    "loss": "loss (nats per token)",
    "divergence": "divergence (nats)",
    "same_top": "top token as dense (%)",
    "acc": "accuracy (%)",
    "mean_acc": "mean accuracy (%)",
    "perplexity_ratio": "perplexity (× dense)",
    "mean_acc_share": "mean accuracy (% of dense)",
    "seconds": "pruning time (s)",
    "peak_memory_bytes": "peak memory (bytes)",
    "relative_error": "relative layer error",
    "sparsity": "sparsity",
    "raised_damping": "layers with raised λ",
}
# Of predictions beside the dense model's: that has none itself.
FROM_DENSE = ("divergence", "same_top")
_MAIN = ("perplexity", *FROM_DENSE, "mean_acc", "perplexity_ratio", "mean_acc_share")
_COUNTS = ("raised_damping",)
_COARSENESS = {"": 0, "none": 0, "int8": 1, "int4": 2}
_HIGHER_IS_BETTER = ("acc", "mean_acc", "mean_acc_share", "same_top")
_DATASETS = ("wikitext2", "ptb", "c4")  # the paper's order; others follow by name
_PROTOCOL = {
    "context": "window lengths",
    "source": "corpora or tasks",
    "add_bos": "values of add_bos",
}


class Observation(NamedTuple):
    """What one run, of one seed, contributes to a mean; `stderr` is NaN where it is not known."""

    seed: int
    run: str
    value: float
    stderr: float


@dataclass(frozen=True)
class Measure:
    """One metric on one data set; of a task's own metrics lm-eval says whether higher is better."""

    metric: str
    dataset: str = ""
    higher: bool = False

    @property
    def higher_is_better(self) -> bool:
        return self.higher or self.metric in _HIGHER_IS_BETTER

    @property
    def title(self) -> str:
        """Data set, metric, unit and direction: `wikitext2 perplexity ↓`."""
        name = _TITLES.get(self.metric, self.metric)
        if self.metric.startswith("exact_match"):  # of answers under a filter, say
            name += " (%)"
        dataset = self.dataset.replace("zero_shot", "zero-shot")
        arrow = "↑" if self.higher_is_better else "↓"
        return " ".join(filter(None, (dataset, name, arrow)))

    def text(self, value: float) -> str:
        """The value with the digits that a reader can use."""
        return f"{value:.{self.decimals(value)}f}"

    def decimals(self, value: float) -> int:
        """Two decimals, fewer for large numbers, more for times and errors below one."""
        if self.metric in _COUNTS:
            return 0 if float(value).is_integer() else 1
        if value != 0 and abs(value) < 1 and not self.higher_is_better:
            return min(6, 2 - int(np.floor(np.log10(abs(value)))))
        return 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame's rows of this measure."""
        return frame[(frame["metric"] == self.metric) & (frame["dataset"] == self.dataset)]


def main_measures(frame: pd.DataFrame) -> list[Measure]:
    """The headline measures that the frame has: perplexities, divergences, the zero-shot mean.

    As values, or as the shares of `recovery.recovered`.
    """

    def rank(dataset: str) -> tuple[int, str]:
        place = _DATASETS.index(dataset) if dataset in _DATASETS else len(_DATASETS)
        return place, dataset

    found = []
    for metric in _MAIN:
        datasets = frame.loc[frame["metric"] == metric, "dataset"].unique()
        found += [Measure(metric, dataset) for dataset in sorted(datasets, key=rank)]
    return found


def task_measures(frame: pd.DataFrame) -> list[Measure]:
    """The accuracy of every task that has one, then all other metrics of tasks."""
    accuracies = frame.loc[frame["metric"] == "acc", "dataset"].unique()
    others = frame[frame["higher_is_better"].notna()]
    others = others[["metric", "dataset", "higher_is_better"]].drop_duplicates()
    others = others.sort_values(["dataset", "metric"])
    return [
        *(Measure("acc", task) for task in accuracies),
        *(Measure(metric, task, bool(higher)) for metric, task, higher in others.to_numpy()),
    ]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def with_variants(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with neutral values for missing variant options, and all dense runs alike.

    A model that was trained after its pruning is another one, `doc-llama recovered (lora)`, and so
    is one whose weights are quantised for the evaluation: `doc-llama int4`.
    """
    dense = frame["pattern"] == DENSE
    neutral = {
        **{"outlier_fraction": 0.0, "outlier_score": "exact", "refine_steps": 0.0},
        **{"order": "", "correction": 0.0, "channel_permutation": 0.0, "allocation": ""},
        **{"allocation_unit": "block"},
        **{"reconstruction_steps": 0.0},
    }
    filled = {
        column: frame[column].mask(dense | frame[column].isna() | (frame[column] == ""), value)
        for column, value in neutral.items()
    }
    places = {
        "model": {model: place for place, model in enumerate(frame["model"].unique())},
        "quantization": _COARSENESS,
    }
    labels = [own_label(row) for row in records(frame[["label", "method"]])]
    filled["label"] = pd.Series(labels, frame.index, dtype="str").mask(dense, "")
    frame = frame.assign(method=frame["method"].mask(dense, DENSE), **filled).sort_values(
        ["model", "recovery", "quantization"],
        kind="stable",
        key=lambda column: column.map(places.get(str(column.name), lambda value: value)),
    )
    trained = frame["recovery"] != ""
    model = frame["model"].mask(trained, frame["model"] + " recovered (" + frame["recovery"] + ")")
    quantized = frame["quantization"].map(_COARSENESS) > 0
    return frame.assign(model=model.mask(quantized, model + " " + frame["quantization"]))


def only_pruned(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs whose models were evaluated as pruning left them; dense ones as they are stored."""
    return frame[frame["quantization"].isin(("", "none")) & (frame["recovery"] == "")]


def over_seeds(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Mean over seeds of one measure's rows, per group of `keys`.

    Returns the keys with `mean`, `interval` (half width of the 95% interval by Student's t; NaN for
    one seed), `seeds` and `observations`, a tuple of `Observation`. Raises UserError if a group
    differs in more than the seed.
    """
    means = []
    for values, group in rows.groupby(list(keys), dropna=False, sort=False):
        dense = (group["pattern"] == DENSE).all()
        if len(group) > 1:
            _refuse_mixture(group, DENSE_CONDITIONS if dense else CONDITIONS)
        if dense:  # a dense model has nothing random: repeated runs are one observation
            group = group.drop_duplicates("value")
        if group["seed"].duplicated().any():
            raise UserError(
                f"several runs for one seed: {', '.join(group['run'])}; remove the outdated one"
            )
        count = len(group)
        record = dict(zip(keys, values, strict=True))
        mean, interval = mean_interval(group["value"].to_numpy())
        parts = group.reindex(columns=Observation._fields)  # layers have no standard error
        observed = tuple(Observation(*row) for row in parts.itertuples(index=False))
        record |= {"mean": mean, "interval": interval, "seeds": count, "observations": observed}
        means.append(record)
    return pd.DataFrame(means, columns=[*keys, "mean", "interval", "seeds", "observations"])


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half width of its 95% interval by Student's t, NaN for a single value."""
    count = len(values)
    if count < 2:
        return float(values.mean()), float("nan")
    quantile = stdtrit(count - 1, (1 + CONFIDENCE) / 2)
    return float(values.mean()), float(quantile * values.std(ddof=1) / np.sqrt(count))


def refuse_mixed_protocols(rows: pd.DataFrame, measure: Measure) -> None:
    """Raise UserError if a model's rows of one measure come from different evaluation protocols."""
    for model, group in rows.groupby("model"):
        for column, name in _PROTOCOL.items():
            found = sorted(set(group[column].dropna().astype(str)) - {""})
            if len(found) > 1:
                raise UserError(
                    f"{model}, {measure.title[:-2]}: runs have different {name} "
                    f"({', '.join(found)}): their numbers must not stand in one column"
                )


def _refuse_mixture(group: pd.DataFrame, conditions: Sequence[str]) -> None:
    mixed = [
        column
        for column in conditions
        if column in group and group[column].nunique(dropna=False) > 1
    ]
    if mixed:
        runs = ", ".join(sorted(group["run"].unique())[:4])
        raise UserError(
            f"runs of one table cell or figure point differ in {', '.join(mixed)} ({runs}): "
            f"{remedy_of(mixed)}"
        )
