"""What finished runs measured, as named cells, and what their numbers are comparable under."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, layer_type
from thanos.reporting.run_files import RunFiles, read_listing

Value = float | str
# Libraries that numbers depend on.
_NUMERICAL = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        group: what it shares with the runs of other methods: model, pattern, α, seed.
        method: its label.
        metrics: `perplexity <corpus>`, `recovery <corpus>`, `relative error` and so on.
        seconds: of pruning one block's layers; None for the dense run.
    """

    group: str
    method: str
    metrics: dict[str, Value]
    seconds: float | None

    @property
    def name(self) -> str:
        """`doc-llama 2:4 thanos`, with α and seed where they are not 0."""
        return self.group.replace("*", self.method)


@dataclass
class Measured:
    """All cells of a suite by their names, and the conditions that their values hold under."""

    cells: dict[str, Cell] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)


def measure(listing: Path) -> Measured:
    """Read the finished runs of a suite's list.

    Raises:
        UserError: a result is missing or damaged, two runs have one name, or runs were made under
            different conditions.
    """
    runs = list(read_listing(listing).read())
    dense = {
        str(run.columns["model"]): run.evaluation["corpora"]
        for run in runs
        if run.columns["pattern"] == DENSE
    }
    measured = Measured()
    for run in runs:
        cell = _cell(run, dense.get(str(run.columns["model"]), {}))
        if cell.name in measured.cells:
            raise UserError(
                f"two runs are called {cell.name!r}, one of them {run.name}; "
                "give one of them another method.label"
            )
        measured.cells[cell.name] = cell
        for name, value in _conditions(run).items():
            if measured.conditions.setdefault(name, value) != value:
                raise UserError(
                    f"{run.name}: {name} is not that of the other runs; "
                    "delete the measurements beside them and run the suite with --forceall"
                )
    return measured


def _cell(run: RunFiles, dense: dict[str, Any]) -> Cell:
    columns = run.columns
    metrics: dict[str, Value] = {}
    for corpus, result in run.evaluation["corpora"].items():
        metrics[f"perplexity {corpus}"] = result["perplexity"]
        if run.pruning and corpus in dense:
            metrics[f"recovery {corpus}"] = dense[corpus]["perplexity"] / result["perplexity"]
        metrics[f"tokens {corpus}"] = result["tokens_sha256"][:12]
    for task, result in run.evaluation["tasks"].items():
        if "acc" in result:
            metrics[f"accuracy {task}"] = result["acc"]
    for name in ("sparsity", "relative_error"):
        if run.pruning.get(name) is not None:
            metrics[name.replace("_", " ")] = run.pruning[name]
    if run.pruning:
        metrics["tokens calibration"] = run.pruning["calibration"]["tokens_sha256"][:12]
    parts = [str(columns["model"]), str(columns["pattern"]), "*"]
    if run.pruning:
        parts += [f"α={columns['outlier_fraction']:g}"] if columns["outlier_fraction"] else []
        parts += [f"seed={columns['seed']}"] if columns["seed"] else []
    else:
        parts.pop(1)
    seconds = block_seconds(run.pruning["layers"]) if run.pruning else None
    return Cell(" ".join(parts), str(columns["label"]), metrics, seconds)


def block_seconds(layers: Iterable[dict[str, Any]]) -> float:
    """Seconds of pruning a block's layers, each taken from the block where it was fastest.

    All blocks have the same layers, so that a moment in which the machine was busy counts only if
    it delayed one layer in every block.
    """
    fastest: dict[str, float] = {}
    for layer in layers:
        kind = layer_type(layer["layer"])
        fastest[kind] = min(layer["seconds"], fastest.get(kind, math.inf))
    return math.fsum(fastest.values())


def _conditions(run: RunFiles) -> dict[str, str]:
    """What must be the same for two values to be comparable."""
    corpora = run.evaluation["corpora"]
    made = next(iter(corpora.values()))["provenance"]
    conditions = {"lock file": _text(made["lock_sha256"])[:12]}
    # Builds for CPU and CUDA are one version; on what it ran is a condition of its own.
    versions = {name: _text(made["versions"].get(name)) for name in _NUMERICAL}
    conditions |= {name: version.partition("+")[0] for name, version in versions.items()}
    conditions["device"] = "CPU" if made["used"]["device"] == "cpu" else "GPU"
    conditions[f"model {run.columns['model']}"] = _model(run, made)
    for corpus, result in corpora.items():
        conditions[f"corpus {corpus}"] = result["corpus_sha256"][:12]
    if run.pruning:
        name = run.columns["calibration_source"]
        conditions[f"calibration corpus {name}"] = run.pruning["calibration"]["corpus_sha256"][:12]
    return conditions


def _model(run: RunFiles, made: dict[str, Any]) -> str:
    """The content of a local model; the commit, or the mirror's content, of the hub's."""
    model = run.evaluation["spec"]["model"]
    while "model" in model:  # of a pruned one, or of a trained one
        model = model["model"]
    if model["weights"]:
        return f"{model['description'][:6]}{model['weights'][:6]}"
    record = run.pruning["provenance"] if run.pruning else made
    return record["fingerprint"]["inputs"].get(f"model {model['path']}", "unknown")[:12]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)
