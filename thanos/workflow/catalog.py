"""What the rules ask: the suites, and by its folder's name everything that they are made of."""

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import layout
from ..artifacts import read_json, write_json
from ..config import Folders, Run
from ..errors import UserError
from ..identity import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    ModelSpec,
    Place,
    PruningSpec,
    RecoverySpec,
    Spec,
    WindowsSpec,
)
from ..identity.fingerprints import Fingerprint, fingerprint
from ..identity.spec import digest, read_spec
from .suite_files import suite_files
from .suites import Suite, load_suite

_KINDS: dict[str, type[Spec]] = {
    layout.MODELS: ModelSpec,
    layout.CALIBRATION: CalibrationSpec,
    layout.WINDOWS: WindowsSpec,
    layout.PRUNED: PruningSpec,
    layout.RECOVERED: RecoverySpec,
    layout.EVALUATIONS: EvaluationSpec,
    layout.LATENCIES: LatencySpec,
}


@dataclass(frozen=True)
class Thing:
    """Something that is made: what it is of, and where and how it is computed."""

    kind: str  # its folder below the results
    spec: Spec
    place: Place

    @functools.cached_property
    def fingerprint(self) -> Fingerprint:
        """Of what stands behind the spec today."""
        return fingerprint(self.spec, self.place)

    @property
    def base(self) -> ModelSpec:
        """The model as it is stored that it is of."""
        spec: Any = self.spec
        while not isinstance(spec, ModelSpec):
            spec = spec.pruning if isinstance(spec, LatencySpec) else spec.model
        return spec


def things_of(runs: Iterable[Run]) -> dict[tuple[str, str], Thing]:
    """All that some runs are made of, once each, by kind and name."""
    found: dict[tuple[str, str], Thing] = {}
    for run in runs:
        for kind, spec in _specs(run):
            if (kind, spec.id) not in found:
                found[kind, spec.id] = Thing(kind, spec, run.place)
    return found


def _specs(run: Run) -> Iterator[tuple[str, Spec]]:
    pruning = run.pruning
    if run.evaluation.base.gguf is not None:
        yield layout.MODELS, run.evaluation.base
    if pruning is not None:
        if pruning.calibration is not None:
            yield layout.CALIBRATION, pruning.calibration
        yield layout.PRUNED, pruning
    if run.recovery is not None:
        yield layout.CALIBRATION, run.recovery.text
        yield layout.RECOVERED, run.recovery
    for windows in run.evaluation.windows:
        yield layout.WINDOWS, windows
    yield layout.EVALUATIONS, run.evaluation
    if run.latency is not None:
        yield layout.LATENCIES, run.latency


def listing(suite: Suite) -> dict[str, Any]:
    """A suite's runs as JSON values: what they are called, and where their results lie."""
    # Sweeps lie beside their results, where they are found by themselves.
    folders = [folder for folder in suite.folders if Path(folder).name != layout.SWEEPS]
    return {
        "suite": suite.name,
        "title": suite.title,
        "axes": list(suite.axes),
        "overrides": list(suite.overrides),
        **({"config_dir": folders} if folders else {}),
        "runs": [
            {
                "run": run.name,
                "columns": run.columns,
                **_homes(run),
                "overrides": list(run.overrides),
            }
            for run in suite.runs
        ],
    }


def _homes(run: Run) -> dict[str, Any]:
    """The names of everything that a run is made of, by kind."""
    calibration = run.pruning and run.pruning.calibration
    drawn = calibration and calibration.id
    model = run.evaluation.base
    return {
        layout.MODELS: model.id if model.gguf else None,
        layout.CALIBRATION: [drawn, run.recovery.text.id] if run.recovery else drawn,
        layout.PRUNED: run.pruning and run.pruning.id,
        layout.RECOVERED: run.recovery and run.recovery.id,
        layout.WINDOWS: [windows.id for windows in run.evaluation.windows],
        layout.MEASUREMENTS: [part.id for part in run.evaluation.parts()],
        layout.EVALUATIONS: run.evaluation.id,
        layout.LATENCIES: run.latency and run.latency.id,
    }


class Catalog:
    """The suites under some options, composed when they are asked for.

    Args:
        overrides: of the suites' values.
        size: of the suites, `quick` or `real`; empty: the whole.
        folders: of the user's own, with models, methods and suites beside those of `conf/`.
        models_dir: where models that are stored in GGUF files lie as safetensors.
        noted: what another catalog of the same options noted, with whose things this one begins.
    """

    def __init__(
        self,
        overrides: Iterable[str] = (),
        size: str = "",
        folders: Folders = (),
        models_dir: Path = Path("results") / layout.MODELS,
        noted: Path | None = None,
    ) -> None:
        self._overrides = tuple(overrides)
        self._size = size
        self._folders = folders
        self._models_dir = models_dir
        self._suites: dict[str, Suite] = {}
        self._things = {} if noted is None else self._noted(noted)

    def note(self, file: Path) -> None:
        """Write what was asked for so far is made of.

        Every job of a cluster is a workflow of its own, which would compose suite after suite to
        find the one thing that it makes.
        """
        things = [
            {"kind": kind, "name": name, "spec": t.spec.to_json(), "place": t.place.to_json()}
            for (kind, name), t in self._things.items()
        ]
        write_json(file, {"options": self._options(), "things": things})

    def _noted(self, file: Path) -> dict[tuple[str, str], Thing]:
        """The things of a note; none where it is of other options, or cannot be read."""
        try:
            values = read_json(file, sealed=True)
            if values["options"] != self._options():
                return {}
            return {
                (each["kind"], each["name"]): Thing(
                    each["kind"],
                    read_spec(_KINDS[each["kind"]], json.dumps(each["spec"])),
                    Place(**each["place"]),
                )
                for each in values["things"]
            }
        except (UserError, OSError, KeyError, TypeError):
            return {}

    def _options(self) -> dict[str, Any]:
        return {
            "overrides": list(self._overrides),
            "size": self._size,
            "folders": [str(folder) for folder in self._folders],
            "models_dir": str(self._models_dir),
        }

    def suite(self, name: str) -> Suite:
        """A suite by its name.

        Raises:
            UserError: there is none, or it does not compose.
        """
        if name not in self._suites:
            loaded = load_suite(name, self._overrides, self._size, self._folders)
            suite = self._placed(loaded)
            self._suites[name] = suite
            self._things = {**things_of(suite.runs), **self._things}
        return self._suites[name]

    def _placed(self, suite: Suite) -> Suite:
        where = str(self._models_dir)
        runs = (replace(run, place=replace(run.place, models_dir=where)) for run in suite.runs)
        return replace(suite, runs=tuple(runs))

    def count(self, kind: str) -> int:
        """How many things of a kind the suites have that were asked for so far."""
        return sum(of == kind for of, _ in self._things)

    def loaded(self) -> list[Suite]:
        """The suites that were asked for so far."""
        return list(self._suites.values())

    def thing(self, kind: str, name: str) -> Thing:
        """What lies in a folder, from whichever suite has it.

        Raises:
            UserError: none has.
        """
        if (kind, name) not in self._things:
            for suite in suite_files(self._folders):
                try:
                    self.suite(suite)
                except UserError:  # overrides need not fit a suite that was not asked for
                    continue
                if (kind, name) in self._things:
                    break
            else:
                raise UserError(f"no suite has {kind}/{name}; was the configuration changed?")
        return self._things[kind, name]

    @functools.cache  # noqa: B019 (one catalog lives as long as the workflow)
    def digest(self, name: str) -> str:
        """Digits that change with the list of a suite's runs; where files lie is no part of it."""
        listed = listing(self.suite(name))
        del listed["overrides"]
        listed.pop("config_dir", None)
        for run in listed["runs"]:
            del run["overrides"]
            run["columns"] = {k: v for k, v in run["columns"].items() if k != "model_path"}
        return digest(listed)
