"""How long suites will take on this machine: of what is not made yet, by shapes and speed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from .. import layout
from ..artifacts import MANIFEST
from ..identity import EvaluationSpec, PruningSpec, RecoverySpec, Spec
from ..models.location import cached_folder
from ..models.shapes import Shapes, read_shapes
from ..opening import dequantized_folder, model_location
from .catalog import Thing
from .schedule import Job, Key, makespan
from .speed import Speed
from .time_plan import cost_of

_REPORT_SECONDS = 25.0  # of tables, figures and the report of a suite
_MODEL_SECONDS = 30.0  # of taking a model out of a GGUF file, without its download
# The file that says that a thing is made.
_DONE = {
    layout.MODELS: MANIFEST,
    layout.CALIBRATION: MANIFEST,
    layout.WINDOWS: MANIFEST,
    layout.PRUNED: layout.RECORD,
    layout.RECOVERED: layout.RECOVERY,
    layout.EVALUATIONS: layout.EVALUATION,
    layout.LATENCIES: layout.LATENCY,
}


class Estimate:
    """Of the time that things take which are not made yet.

    Args:
        things: that suites are made of, by kind and name.
        results: the folder that they lie in.
        cores: of the machine; jobs run beside each other.
        threads: of a job.
        speed: of a job.
        suites: how many there are, for their reports.
    """

    def __init__(
        self,
        things: Mapping[Key, Thing],
        results: Path,
        *,
        cores: int,
        threads: int,
        speed: Speed,
        suites: int = 1,
    ) -> None:
        self.cores = cores
        self._things = things
        self._results = results
        self._threads = min(threads, cores)
        self._speed = speed
        self._suites = suites
        self._shapes: dict[str, Shapes] = {}

    def unknown(self) -> list[str]:
        """Models that are not on this machine, so that their shapes are not known."""
        bases = {thing.base.path for thing in self._things.values() if self._of(thing) is None}
        return sorted(bases)

    def jobs(self) -> dict[Key, Job]:
        """The jobs that are still to be done; of an unknown model only what makes it."""
        found: dict[Key, Job] = {}
        for key, thing in self._things.items():
            if (self._results / "/".join(key) / _DONE[thing.kind]).exists():
                continue
            if thing.kind == layout.MODELS:
                found[key] = Job(_MODEL_SECONDS, self._threads)
            elif (shapes := self._of(thing)) is not None:
                seconds = cost_of(self._missing(thing.spec), shapes).on(self._speed)
                cores = self.cores if thing.kind == layout.LATENCIES else self._threads
                found[key] = Job(seconds, cores, tuple(_before(thing)))
        return found

    def seconds(self) -> float:
        """From now until everything is made."""
        jobs = self.jobs()
        return makespan(jobs, self.cores) + (self._suites * _REPORT_SECONDS if jobs else 0.0)

    def _missing(self, spec: Spec) -> Spec:
        """The spec, of an evaluation without the parts that have been measured."""
        if not isinstance(spec, EvaluationSpec):
            return spec
        home = self._results / layout.MEASUREMENTS
        parts = [part for part in spec.parts() if not (home / f"{part.id}.json").exists()]
        windows = tuple(cut for part in parts for cut in part.windows)
        return replace(spec, windows=windows, tasks=tuple(t for p in parts for t in p.tasks))

    def _of(self, thing: Thing) -> Shapes | None:
        model, place = thing.base, thing.place
        if model.id not in self._shapes:
            if model.gguf is not None and not dequantized_folder(model, place).is_dir():
                return None
            folder = cached_folder(model_location(model, place), model.revision)
            if folder is None:
                return None
            self._shapes[model.id] = read_shapes(folder)
        return self._shapes[model.id]


def _before(thing: Thing) -> Iterator[Key]:
    """What must be there before a thing is made."""
    if thing.base.gguf is not None:
        yield layout.MODELS, thing.base.id
    spec = thing.spec
    if isinstance(spec, PruningSpec) and spec.calibration is not None:
        yield layout.CALIBRATION, spec.calibration.id
    if isinstance(spec, EvaluationSpec):
        yield from ((layout.WINDOWS, windows.id) for windows in spec.windows)
        if spec.recovery is not None:
            yield layout.RECOVERED, spec.recovery.id
    if isinstance(spec, RecoverySpec):
        yield layout.CALIBRATION, spec.text.id
    if (pruning := getattr(spec, "pruning", None)) is not None:
        yield layout.PRUNED, pruning.id
