"""The results of a suite's runs, read and checked: what the rest of reporting relies on."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thanos import layout
from thanos.artifacts import read_json


@dataclass(frozen=True)
class RunFiles:
    """One run.

    Attributes:
        name: `<model>/<pattern>/<method>-<hash>`.
        columns: what its configuration says in a table of results.
        pruning: the record of its pruned model; empty for a dense one.
        recovery: the record of its training; empty for a model that was only pruned.
        evaluation: `corpora`, `divergences` if asked for, `tasks`, `texts` and `size`.
        latency: empty unless the suite asks for it.
    """

    name: str
    columns: dict[str, Any]
    pruning: dict[str, Any] = field(default_factory=dict)
    recovery: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, Any] = field(default_factory=dict)

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Everything of it that says how it was made, by its name."""
        if self.pruning:
            yield "pruning", self.pruning
        if self.recovery:
            yield "recovery", self.recovery
        for kind in ("corpora", "divergences", "tasks", "texts"):
            yield from self.evaluation.get(kind, {}).items()
        if "size" in self.evaluation:
            yield "size", self.evaluation["size"]
        if self.latency:
            yield "latency", self.latency


@dataclass(frozen=True)
class Listing:
    """A suite's list of runs, `runs.json`."""

    file: Path
    title: str
    axes: list[str]
    runs: list[dict[str, Any]]

    def read(self) -> Iterator[RunFiles]:
        """The runs with their results, one at a time.

        Raises:
            UserError: a result is missing or damaged; the message has its path.
        """
        results = layout.results_of(self.file)
        for run in self.runs:
            pruned, latency = run[layout.PRUNED], run[layout.LATENCIES]
            recovered = run.get(layout.RECOVERED)  # older lists have none
            evaluation = results / layout.EVALUATIONS / run[layout.EVALUATIONS] / layout.EVALUATION
            yield RunFiles(
                name=run["run"],
                columns=run["columns"],
                pruning=_read(results / layout.PRUNED / pruned / layout.RECORD) if pruned else {},
                recovery=_read(results / layout.RECOVERED / recovered / layout.RECOVERY)
                if recovered
                else {},
                evaluation=_read(evaluation),
                latency=_read(results / layout.LATENCIES / latency / layout.LATENCY)
                if latency
                else {},
            )


def read_listing(file: Path) -> Listing:
    """Read a suite's list of runs.

    Raises:
        UserError: it is missing or damaged.
    """
    values = read_json(file, sealed=True)
    return Listing(file, values["title"], values["axes"], values["runs"])


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, sealed=True)
