"""A small results folder, filled as the other stages fill it: what reporting can read."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from thanos import layout
from thanos.artifacts import read_json, write_json
from thanos.config import Run, RunBuilder
from thanos.config.schema import (
    CalibrationConfig,
    Config,
    EvaluationConfig,
    MethodConfig,
    ModelConfig,
    RecoveryConfig,
)
from thanos.identity.spec import digest
from thanos.pruning.patterns import SemiStructured
from thanos.reporting.collecting import Collected, collect
from thanos.reporting.run_files import RunFiles, read_listing
from thanos.workflow.catalog import listing
from thanos.workflow.suites import Suite

ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
TYPES = (*(f"self_attn.{name}" for name in ATTENTION), *(f"mlp.{name}" for name in MLP))
# Of every record: how it was made.
MADE = {
    "fingerprint": {
        "code": {"thanos.stages": "c0de"},
        "libraries": {"torch": "2.13.0"},
        "inputs": {},
    },
    "used": {"device": "cpu", "dtype": "float32", "threads": 2},
    "source": {"revision": "5eed", "dirty": False},
    "lock_sha256": "10cc",
    "versions": {"torch": "2.13.0"},
    "python": "3.11.7",
    "hardware": {"machine": "x86_64", "cores": 2},
    "started": "2026-01-01T00:00:00Z",
    "ended": "2026-01-01T00:01:00Z",
}


# What a training leaves, beside its losses and layers.
RECOVERED = {
    **{"sparsity": 0.5, "sparsity_before": 0.5, "zeros": 50, "zeros_before": 50},
    **{"overfull_groups": None, "tokens": 2048, "trained_parameters": 100, "seconds": 7.5},
    **{"peak_memory_bytes": 123456789, "text": {"tokens_sha256": "7e47"}},
}


class ResultsFolder:
    """A results folder; what is not said is made up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self,
        model: str = "doc-llama",
        pattern: str = "2:4",
        method: str = "thanos",
        perplexity: float = 33.94,
        *,
        label: str = "",
        alpha: float = 0.0,
        outlier_score: str = "exact",
        seed: int = 0,
        block_size: int | None = None,
        windows: int = 64,
        seqlen: int = 256,
        source: str = "docs",
        path: str | None = None,
        corpus: str = "docs",
        acc: float | None = None,
        divergence: float | None = None,
        latency: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        recovery: str = "none",
        **results: Any,
    ) -> Run:
        """A run of this configuration, finished with these results; `options` are the method's."""
        config = Config(
            model=ModelConfig(path or f"testbed/{model}", model, context=seqlen),
            calibration=CalibrationConfig(source, source, windows=windows),
            method=MethodConfig(method, label or method, block_size, **(options or {})),
            evaluation=EvaluationConfig(
                "docs",
                [corpus],
                tasks=[] if acc is None else ["docs_choice"],
                divergence=divergence is not None,
                efficiency=latency is not None,
            ),
            recovery=RecoveryConfig(recovery),
            pattern=pattern,
            outlier_fraction=alpha,
            outlier_score=outlier_score,
            seed=seed,
        )
        run = RunBuilder().run(config)
        measured = {"acc": acc, "divergence": divergence, "latency": latency}
        return self.finish(run, perplexity, **measured, **results)

    def finish(
        self,
        run: Run,
        perplexity: float,
        *,
        acc: float | None = None,
        divergence: float | None = None,
        noise: Callable[[int], float] = lambda window: 0.0,
        layers: Sequence[dict[str, Any]] | None = None,
        size: dict[str, Any] | None = None,
        latency: dict[str, Any] | None = None,
        made: dict[str, Any] | None = None,
    ) -> Run:
        """Write the results of a run: losses of its windows, accuracies, layers and so on."""
        record = {**MADE, **(made or {})}
        provenance = {"provenance": record}
        # Windows differ in difficulty, and all runs find the same ones difficult.
        losses = [
            math.log(perplexity) + 0.1 * (window - 4.5) + noise(window) for window in range(10)
        ]
        corpora = {
            windows.readable: {
                **{"perplexity": perplexity, "loss": 3.5, "windows": 100, "window_losses": losses},
                **{"seqlen": windows.context, "corpus_sha256": "c0ffee", "tokens_sha256": "70ce"},
                **provenance,
            }
            for windows in run.evaluation.windows
        }
        task = {"acc": acc, "acc_stderr": 1.5, "n": 800, "version": 1.0, **provenance}
        measured = {"corpora": corpora, "tasks": dict.fromkeys(run.evaluation.tasks, task)}
        if divergence is not None:
            measured["divergences"] = {
                windows.readable: {
                    **{"divergence": divergence, "same_top": 90 - 100 * divergence},
                    **{"windows": 100, "seqlen": windows.context, "corpus_sha256": "c0ffee"},
                    "window_divergences": [divergence + 0.01 * window for window in range(10)],
                    "window_same_top": [90 - 100 * divergence] * 10,
                    **provenance,
                }
                for windows in run.evaluation.windows
            }
        sizes = {}
        if size is not None:  # counted, not computed
            counted = {key: value for key, value in record.items() if key != "used"}
            sizes = {"size": {**size, "provenance": counted}}
        self._write(run, layout.EVALUATIONS, {**measured, "texts": {}, **sizes})
        if run.pruning is not None:
            self._write(run, layout.PRUNED, {**_pruning(run, layers), **provenance})
        if run.recovery is not None:
            self._write(run, layout.RECOVERED, {**RECOVERED, **provenance})
        if latency is not None:
            self._write(run, layout.LATENCIES, {**latency, **provenance})
        return run

    def file(self, run: Run, kind: str) -> Path:
        """Where the results of a kind lie."""
        spec, name = _things(run)[kind]
        return self.folder / kind / spec.id / name

    def write_list(self, runs: Iterable[Run], axes: Sequence[str] = ()) -> Path:
        """Write the list of a suite's runs, by their names, and return it."""
        named = {run.name: run for run in runs}
        file = self.folder / layout.SUITES / "mine" / layout.RUNS
        write_json(file, listing(Suite("mine", "Mine", tuple(named.values()), tuple(axes))))
        return file

    def read(self, runs: Iterable[Run]) -> Iterator[RunFiles]:
        """The runs as reporting reads them."""
        return read_listing(self.write_list(runs)).read()

    def collect(self, runs: Iterable[Run]) -> Collected:
        """All results of the runs."""
        return collect(self.read(runs))

    def _write(self, run: Run, kind: str, values: dict[str, Any]) -> None:
        file = self.file(run, kind)
        content = {"spec": _things(run)[kind][0].to_json(), **values}
        assert not file.exists() or read_json(file) == content, f"{run.name} has other results"
        write_json(file, content)


def layer(
    block: int,
    kind: str,
    error: float | None,
    sparsity: float = 0.5,
    damping: float | None = 0.01,
    shape: Sequence[int] = (256, 256),
) -> dict[str, Any]:
    """The record of a layer."""
    return {
        **{"block": block, "layer": f"model.layers.{block}.{kind}", "shape": list(shape)},
        **{"sparsity": sparsity, "relative_error": error, "seconds": 0.1, "damping": damping},
        "details": {},
    }


def layers_of(sparsity: float, damping: float | None, scale: float = 1.0) -> list[dict[str, Any]]:
    """The records of a model's layers: deeper ones are worse."""
    return [
        layer(block, kind, 0.01 * scale * (1 + block) * (1 + 0.2 * index), sparsity, damping)
        for block in range(4)
        for index, kind in enumerate(TYPES)
    ]


def _things(run: Run) -> dict[str, tuple[Any, str]]:
    return {
        layout.PRUNED: (run.pruning, layout.RECORD),
        layout.RECOVERED: (run.recovery, layout.RECOVERY),
        layout.EVALUATIONS: (run.evaluation, layout.EVALUATION),
        layout.LATENCIES: (run.latency, layout.LATENCY),
    }


def _pruning(run: Run, layers: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    spec = run.pruning
    assert spec is not None
    sparsity = spec.pattern.sparsity
    if isinstance(spec.pattern, SemiStructured):
        sparsity *= 1 - spec.outlier_fraction
    scale = {"magnitude": 3.0, "wanda": 2.0, "sparsegpt": 1.2}.get(run.columns["method"], 1.0)
    tokens = digest(None if spec.calibration is None else spec.calibration.identity())
    return {
        **{"sparsity": sparsity, "relative_error": 0.02, "seconds": 3.5},
        "seconds_by_part": {"forward": 2.0, "gram": 0.5, "solve": 0.75, "other": 0.25},
        "peak_memory_bytes": 123456789,
        "layers": layers_of(sparsity, spec.damping, scale) if layers is None else list(layers),
        "calibration": {"corpus_sha256": "ca11b7a7e", "tokens_sha256": tokens},
    }
