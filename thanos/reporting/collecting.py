"""Read what finished runs left, into frames."""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.frame import COLUMNS, LAYER_COLUMNS, WINDOW_COLUMNS, typed
from thanos.reporting.labels import layer_type
from thanos.reporting.measures import FROM_DENSE
from thanos.reporting.recovery import with_share_of_dense
from thanos.reporting.run_files import RunFiles

# Of a part's file, besides its numbers.
_RECORDS = ("spec", "provenance")
# What is said of a training.
_OF_TRAINING = (
    *("sparsity", "sparsity_before", "zeros", "zeros_before", "overfull_groups"),
    *("tokens", "trained_parameters", "seconds", "peak_memory_bytes"),
)
_AT_ONCE = 200  # runs whose files are in memory together


@dataclass(frozen=True)
class Collected:
    """All results of a set of runs.

    Attributes:
        results: one row per run and metric, with `COLUMNS`, sorted. Metrics: `perplexity`, `loss`,
            `divergence` in nats, `same_top` in percent (dataset: corpus); `acc`, `acc_norm`,
            `mean_acc` in percent (dataset: task, or `zero_shot`); `word_perplexity`, lm-eval's
            (dataset: task), and any other metric of a task by its name; `subtask_acc` (dataset:
            `group/task`); `sparsity`, `relative_error`, `seconds`, `peak_memory_bytes` of the
            pruning and `seconds.<part>` of its parts (dataset empty); `recovery.<key>` of the
            training afterwards, `size.<key>`, `efficiency.<key>`.
        layers: one row per run and layer, with `LAYER_COLUMNS`.
        windows: one row per run, corpus and evaluation window, with its loss and, where the dense
            model was compared, `FROM_DENSE`.
    """

    results: pd.DataFrame
    layers: pd.DataFrame
    windows: pd.DataFrame


def collect(runs: Iterable[RunFiles]) -> Collected:
    """Read finished runs into frames, one after the other: no more than some are in memory.

    Raises:
        UserError: for anything missing or non-finite.
    """
    parts: list[Collected] = []
    for some in _batches(runs):
        parts.append(
            Collected(
                _frame([row for run in some for row in _rows(run)], COLUMNS),
                _frame([row for run in some for row in _layer_rows(run)], LAYER_COLUMNS),
                _frame([row for run in some for row in _window_rows(run)], WINDOW_COLUMNS),
            )
        )
    results = pd.concat([part.results for part in parts], ignore_index=True)
    layers = pd.concat([part.layers for part in parts], ignore_index=True)
    windows = pd.concat([part.windows for part in parts], ignore_index=True)
    order = ["model", "pattern", "method", "run", "metric", "dataset"]
    return Collected(
        with_share_of_dense(results).sort_values(order, ignore_index=True),
        layers.sort_values(["run", "block"], kind="stable", ignore_index=True),
        windows.sort_values("run", kind="stable", ignore_index=True),
    )


def numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """The numeric leaves of nested mappings, with dotted keys; lists and texts are left out."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from numbers(item, f"{key}.{name}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _batches(runs: Iterable[RunFiles]) -> Iterator[list[RunFiles]]:
    ahead = iter(runs)
    yield list(itertools.islice(ahead, _AT_ONCE))  # a suite may have no runs at all
    while some := list(itertools.islice(ahead, _AT_ONCE)):
        yield some


def _identity(run: RunFiles) -> dict[str, Any]:
    return {"run": run.name, **run.columns}


def _rows(run: RunFiles) -> Iterator[dict[str, Any]]:
    identity = _identity(run)
    for row in _measurements(run):
        yield {**identity, **row}


def _layer_rows(run: RunFiles) -> Iterator[dict[str, Any]]:
    identity = _identity(run)
    for layer in run.pruning.get("layers", ()):
        record = {key: layer.get(key) for key in LAYER_COLUMNS if key in layer}
        rows, columns = layer["shape"]
        kind = layer_type(layer["layer"])
        yield {**identity, **record, "layer_type": kind, "rows": rows, "columns": columns}


def _window_rows(run: RunFiles) -> Iterator[dict[str, Any]]:
    compared = run.evaluation.get("divergences", {})
    for corpus, result in run.evaluation.get("corpora", {}).items():
        columns = {"loss": result.get("window_losses", ())}
        if corpus in compared:
            columns["divergence"] = compared[corpus]["window_divergences"]
            columns["same_top"] = compared[corpus]["window_same_top"]
        for window, values in enumerate(zip(*columns.values(), strict=True)):
            named = dict(zip(columns, values, strict=True))
            yield {"run": run.name, "dataset": corpus, "window": window, **named}


def _measurements(run: RunFiles) -> Iterator[dict[str, Any]]:
    try:
        for key in ("sparsity", "relative_error", "seconds", "peak_memory_bytes"):
            if run.pruning.get(key) is not None:
                yield {"metric": key, "value": run.pruning[key]}
        for key, value in numbers(run.pruning.get("seconds_by_part", {}), "seconds"):
            yield {"metric": key, "value": value}
        for key in _OF_TRAINING if run.recovery else ():
            if run.recovery[key] is not None:
                yield {"metric": f"recovery.{key}", "value": run.recovery[key]}
        if (raised := _raised_damping(run)) is not None:
            yield {"metric": "raised_damping", "value": raised}
        for corpus, result in run.evaluation.get("corpora", {}).items():
            shared = {
                "dataset": corpus,
                "n": result.get("windows"),
                "context": result.get("seqlen"),
                "source": result.get("corpus_sha256"),
            }
            yield {"metric": "perplexity", "value": result["perplexity"], **shared}
            yield {"metric": "loss", "value": result["loss"], **shared}
        for corpus, result in run.evaluation.get("divergences", {}).items():
            shared = {
                "dataset": corpus,
                "n": result["windows"],
                "context": result["seqlen"],
                "source": result.get("corpus_sha256"),
            }
            for metric in FROM_DENSE:
                yield {"metric": metric, "value": result[metric], **shared}
        tasks = scored_tasks(run.evaluation.get("tasks", {}))
        for task, result in tasks.items():
            yield from _task_rows(task, result)
        for text, result in run.evaluation.get("texts", {}).items():
            yield {
                "metric": "word_perplexity",
                "dataset": text,
                "value": result["word_perplexity"],
                "n": result.get("n"),
                "source": result.get("version"),
            }
        if accurate := {name: task for name, task in tasks.items() if "acc" in task}:
            yield {
                "metric": "mean_acc",
                "dataset": "zero_shot",
                "value": mean_accuracy(accurate),
                "stderr": _stderr_of_mean(accurate.values()),
                "n": sum(result.get("n") or 0 for result in accurate.values()),
                "source": "+".join(sorted(accurate)),
            }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.name}: a result lacks {error}; run its rule again") from None
    for part, results in (("size", run.evaluation.get("size", {})), ("efficiency", run.latency)):
        measured = {key: value for key, value in results.items() if key not in _RECORDS}
        form = f"{results['form']} on {results['device']}" if "form" in results else None
        for key, value in numbers(measured, part):
            yield {"metric": key, "value": value, "source": form}


def scored_tasks(tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tasks and groups by name; in the place of a group without metrics of its own, its tasks."""
    found: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        own = "acc" in task or "metrics" in task
        found |= {name: task} if own else task["subtasks"]
    return found


def mean_accuracy(tasks: dict[str, dict[str, Any]]) -> float | None:
    """The mean over all tasks that have an accuracy; None if none has."""
    accuracies = [task["acc"] for task in scored_tasks(tasks).values() if "acc" in task]
    return fmean(accuracies) if accuracies else None


def _task_rows(task: str, result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    shared = {"dataset": task, "n": result.get("n"), "source": result.get("version")}
    if "acc" in result:
        yield {
            "metric": "acc",
            "value": result["acc"],
            "stderr": result.get("acc_stderr"),
            **shared,
        }
    if result.get("acc_norm") is not None:
        yield {"metric": "acc_norm", "value": result["acc_norm"], **shared}
    for metric, score in result.get("metrics", {}).items():
        yield {"metric": metric, **score, **shared}
    for name, part in result.get("subtasks", {}).items():
        if "acc" in part:
            row = {"metric": "subtask_acc", "value": part["acc"], "stderr": part["acc_stderr"]}
            yield {**shared, **row, "dataset": f"{task}/{name}", "n": part["n"]}


def _stderr_of_mean(tasks: Collection[dict[str, Any]]) -> float | None:
    """Of the mean over independent tasks; None if one of them has none."""
    errors = [task.get("acc_stderr") for task in tasks]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


def _raised_damping(run: RunFiles) -> int | None:
    """How many layers needed more than the configured λ; None if the method uses none."""
    asked = run.columns.get("damping")
    used = [layer.get("damping") for layer in run.pruning.get("layers", ())]
    if asked is None or not used or None in used:
        return None
    return sum(damping > asked * (1 + 1e-6) for damping in used)


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    return typed(pd.DataFrame(rows, columns=list(columns)))
