"""What finished runs measured, as named cells, and what their numbers are comparable under."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thanos.errors import UserError
from thanos.reporting.labels import DENSE, layer_type
from thanos.reporting.run_files import RunFiles, read_run

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


def measure(folders: Iterable[Path]) -> Measured:
    """Read finished runs.

    Raises:
        UserError: a result is missing or damaged, two runs have one name, or runs were made under
            different conditions.
    """
    runs = [read_run(folder) for folder in folders]
    dense = {
        _text(run.config["model"]["name"]): run.perplexity["corpora"]
        for run in runs
        if run.config["pattern"] == DENSE
    }
    measured = Measured()
    for run in runs:
        cell = _cell(run, dense.get(_text(run.config["model"]["name"]), {}))
        if cell.name in measured.cells:
            raise UserError(
                f"two runs are called {cell.name!r}, one of them {run.folder}; "
                "give one of them another method.label"
            )
        measured.cells[cell.name] = cell
        for name, value in _conditions(run).items():
            if measured.conditions.setdefault(name, value) != value:
                raise UserError(
                    f"{run.folder}: {name} is not that of the other runs; "
                    "run the suite again with --forceall"
                )
    return measured


def _cell(run: RunFiles, dense: dict[str, Any]) -> Cell:
    config = run.config
    metrics: dict[str, Value] = {}
    for corpus, result in run.perplexity.get("corpora", {}).items():
        metrics[f"perplexity {corpus}"] = result["perplexity"]
        if run.pruning and corpus in dense:
            metrics[f"recovery {corpus}"] = dense[corpus]["perplexity"] / result["perplexity"]
        metrics[f"tokens {corpus}"] = result["tokens_sha256"][:12]
    for task, result in run.zero_shot.get("tasks", {}).items():
        metrics[f"accuracy {task}"] = result["acc"]
    for name in ("sparsity", "relative_error"):
        if run.pruning.get(name) is not None:
            metrics[name.replace("_", " ")] = run.pruning[name]
    if run.pruning:
        metrics["tokens calibration"] = run.pruning["calibration"]["tokens_sha256"][:12]
    parts = [_text(config["model"]["name"]), _text(config["pattern"]), "*"]
    if run.pruning:
        parts += [f"α={config['outlier_fraction']:g}"] if config["outlier_fraction"] else []
        parts += [f"seed={config['seed']}"] if config["seed"] else []
    else:
        parts.pop(1)
    seconds = block_seconds(run.pruning["layers"]) if run.pruning else None
    return Cell(" ".join(parts), run.config["method"]["label"], metrics, seconds)


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
    made = run.perplexity["provenance"]
    conditions = {"lock file": _text(made["lock_sha256"])[:12]}
    # Builds for CPU and CUDA are one version; on what it ran is a condition of its own.
    versions = {name: _text(made["versions"].get(name)) for name in _NUMERICAL}
    conditions |= {name: version.partition("+")[0] for name, version in versions.items()}
    conditions["device"] = "GPU" if "gpu" in made["hardware"] else "CPU"
    model = made["model"]
    content = model.get("commit") or model.get("sha256")
    conditions[f"model {run.config['model']['name']}"] = _text(content)[:12]
    for corpus, result in run.perplexity["corpora"].items():
        conditions[f"corpus {corpus}"] = result["corpus_sha256"][:12]
    if run.pruning:
        name = run.config["calibration"]["source"]
        conditions[f"calibration corpus {name}"] = run.pruning["calibration"]["corpus_sha256"][:12]
    return conditions


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)
