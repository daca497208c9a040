"""All results of a set of runs as one tidy frame: one row per run and metric."""

import io
import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.labels import layer_type, pattern_label
from thanos.reporting.recovery import with_share_of_dense
from thanos.reporting.run_files import RunFiles, read_run

COLUMNS = (
    "run",
    "model",
    "calibration",
    "method",
    "pattern",
    "outlier_fraction",
    "seed",
    "metric",
    "dataset",
    "value",
    # of the measurement
    "stderr",
    "n",  # windows or questions
    "context",  # tokens per window of a perplexity
    "source",  # corpus hash, task version, tasks of a mean, or form and device of a timing
    "share_of_dense",  # value over the same model's dense one, measured alike
    # of the configuration
    "nominal_sparsity",
    "evaluation",
    "quantization",
    "model_path",
    "calibration_source",
    "calibration_windows",
    "calibration_seqlen",
    "block_size",
    "damping",
    "refine_steps",
    "order",
    "correction",
    "mask_metric",
    "mask_scope",
    "mask_update",
)
LAYER_COLUMNS = (
    *COLUMNS[:7],  # of the run
    *COLUMNS[15:],  # of the configuration; damping is the one that the layer needed
    "block",
    "layer",
    "layer_type",
    "rows",
    "columns",
    "sparsity",
    "relative_error",
    "seconds",
)
WINDOW_COLUMNS = ("run", "dataset", "window", "loss")
_TEXT = {
    *("run", "model", "calibration", "method", "pattern", "metric", "dataset", "source"),
    *("evaluation", "quantization", "model_path", "calibration_source", "order"),
    *("mask_metric", "mask_scope", "mask_update", "layer", "layer_type"),
}
_INTEGERS = {"seed", "block", "rows", "columns", "window"}


def collect(run_folders: Iterable[Path | str]) -> pd.DataFrame:
    """Read finished runs into a frame with `COLUMNS`, sorted, whatever the order of the folders.

    Metrics: `perplexity`, `loss` (dataset: corpus); `acc`, `mean_acc` in percent (dataset: task,
    or `zero_shot`); `word_perplexity`, lm-eval's (dataset: task); `sparsity`, `relative_error`,
    `seconds`, `peak_memory_bytes` of the pruning (dataset empty); `size.<key>`,
    `efficiency.<key>`. Raises UserError for anything missing or non-finite.
    """
    rows = [
        {**_identity(run), **row} for run in _read_all(run_folders) for row in _measurements(run)
    ]
    return with_share_of_dense(_frame(rows, COLUMNS)).sort_values(
        ["model", "pattern", "method", "run", "metric", "dataset"], ignore_index=True
    )


def collect_layers(run_folders: Iterable[Path | str]) -> pd.DataFrame:
    """Read the layer records of `pruning.json`: one row per run and layer, with `LAYER_COLUMNS`."""
    rows = []
    for run in _read_all(run_folders):
        for layer in run.pruning.get("layers", ()):
            shape = layer["shape"]
            record = {key: layer.get(key) for key in LAYER_COLUMNS if key in layer}
            kind = layer_type(layer["layer"])
            record |= {"layer_type": kind, "rows": shape[0], "columns": shape[1]}
            rows.append({**_identity(run), **record})
    return _frame(rows, LAYER_COLUMNS).sort_values(
        ["run", "block"], kind="stable", ignore_index=True
    )


def collect_windows(run_folders: Iterable[Path | str]) -> pd.DataFrame:
    """The loss of every evaluation window: one row per run, corpus and window."""
    rows = [
        {"run": run.name, "dataset": corpus, "window": window, "loss": loss}
        for run in _read_all(run_folders)
        for corpus, result in run.perplexity.get("corpora", {}).items()
        for window, loss in enumerate(result.get("window_losses", ()))
    ]
    return _frame(rows, WINDOW_COLUMNS)


def to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV; numbers are written so that reading them back gives the same bits."""
    return frame.to_csv(index=False, lineterminator="\n")  # shortest repr of every float


def from_csv(text: str) -> pd.DataFrame:
    """The inverse of `to_csv`."""
    kinds = dict.fromkeys(_TEXT, str)
    frame = pd.read_csv(io.StringIO(text), dtype=kinds, keep_default_na=False, na_values={})
    return _typed(frame)


def numbers(value: Any, key: str) -> Iterator[tuple[str, float]]:
    """The numeric leaves of nested mappings, with dotted keys; lists and texts are left out."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from numbers(item, f"{key}.{name}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _read_all(run_folders: Iterable[Path | str]) -> list[RunFiles]:
    folders = sorted({Path(folder) for folder in run_folders})
    return [read_run(folder) for folder in folders]


def _identity(run: RunFiles) -> dict[str, Any]:
    """The columns that come from the config. A key that the config lacks gives an empty cell."""
    config = run.config
    model, method = config["model"], config["method"]
    calibration, evaluation = config.get("calibration") or {}, config.get("evaluation") or {}
    try:
        pattern = pattern_label(config["pattern"])
        seed = int(config["seed"])
        outlier_fraction = float(config.get("outlier_fraction") or 0.0)
        names = {"model": str(model["name"]), "method": str(method["name"])}
    except (UserError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.folder / 'config.yaml'}: {error}") from None
    passes = {**config, **method}  # options of the pruning pass live beside or in the method
    return {
        "run": run.name,
        **names,
        "calibration": calibration.get("name"),
        "pattern": pattern.text,
        "outlier_fraction": outlier_fraction,
        "seed": seed,
        "nominal_sparsity": pattern.sparsity,
        "evaluation": evaluation.get("name"),
        "quantization": evaluation.get("quantization") or "none",
        "model_path": model.get("path"),
        "calibration_source": calibration.get("source"),
        "calibration_windows": calibration.get("windows"),
        "calibration_seqlen": calibration.get("seqlen"),
        **{key: passes.get(key) for key in ("block_size", "damping", "refine_steps")},
        **{key: passes.get(key) for key in ("order", "correction")},
        **{f"mask_{key}": method.get(key) for key in ("metric", "scope", "update")},
    }


def _measurements(run: RunFiles) -> Iterator[dict[str, Any]]:
    try:
        for key in ("sparsity", "relative_error", "seconds", "peak_memory_bytes"):
            if run.pruning.get(key) is not None:
                yield {"metric": key, "value": run.pruning[key]}
        if (raised := _raised_damping(run)) is not None:
            yield {"metric": "raised_damping", "value": raised}
        for corpus, result in run.perplexity.get("corpora", {}).items():
            shared = {
                "dataset": corpus,
                "n": result.get("windows"),
                "context": result.get("seqlen"),
                "source": result.get("corpus_sha256"),
            }
            yield {"metric": "perplexity", "value": result["perplexity"], **shared}
            yield {"metric": "loss", "value": result["loss"], **shared}
        for task, result in run.zero_shot.get("tasks", {}).items():
            yield {
                "metric": "acc",
                "dataset": task,
                "value": result["acc"],
                "stderr": result.get("acc_stderr"),
                "n": result.get("n"),
                "source": result.get("version"),
            }
        for text, result in run.zero_shot.get("texts", {}).items():
            yield {
                "metric": "word_perplexity",
                "dataset": text,
                "value": result["word_perplexity"],
                "n": result.get("n"),
                "source": result.get("version"),
            }
        if run.zero_shot.get("tasks"):
            yield {
                "metric": "mean_acc",
                "dataset": "zero_shot",
                "value": run.zero_shot["mean_acc"],
                "stderr": _stderr_of_mean(run.zero_shot["tasks"].values()),
                "n": sum(result.get("n") or 0 for result in run.zero_shot["tasks"].values()),
                "source": "+".join(sorted(run.zero_shot["tasks"])),
            }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.folder}: a result file lacks {error}; run its rule again") from None
    for part, results in (("size", run.size), ("efficiency", run.efficiency)):
        measured = {key: value for key, value in results.items() if key != "provenance"}
        form = f"{results['form']} on {results['device']}" if "form" in results else None
        for key, value in numbers(measured, part):
            yield {"metric": key, "value": value, "source": form}


def _stderr_of_mean(tasks: Collection[dict[str, Any]]) -> float | None:
    """Of the mean over independent tasks; None if one of them has none."""
    errors = [task.get("acc_stderr") for task in tasks]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(errors) if len(known) == len(errors) else None


def _raised_damping(run: RunFiles) -> int | None:
    """How many layers needed more than the configured λ; None if the method uses none."""
    asked = run.config["method"].get("damping")
    used = [layer.get("damping") for layer in run.pruning.get("layers", ())]
    if asked is None or not used or None in used:
        return None
    return sum(damping > asked * (1 + 1e-6) for damping in used)


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    return _typed(pd.DataFrame(rows, columns=list(columns)))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Fixed types, so that a frame does not depend on which runs happen to be in it."""
    for column in frame.columns:
        if column in _TEXT:
            frame[column] = frame[column].map(lambda x: "" if pd.isna(x) else str(x)).astype("str")
        else:
            kind = "int64" if column in _INTEGERS else "float64"
            frame[column] = pd.to_numeric(frame[column]).astype(pd.api.types.pandas_dtype(kind))
    return frame
