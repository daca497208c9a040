"""Whether a suite's results are what was written, and what would be written today."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import layout
from ..artifacts import CHECKSUM, MANIFEST, read_json, verify_manifest, verify_text
from ..errors import UserError
from ..identity import EvaluationSpec, ModelSpec, Spec
from ..identity.fingerprints import Fingerprint, fingerprint, stage_fingerprint
from ..testbed.continuations import TESTBED_TASK
from .catalog import Thing, listing, things_of
from .suites import Suite

# From the gravest to the most harmless.
KINDS = ("damaged", "missing", "stale", "orphaned")
HOMES = (
    *(layout.MODELS, layout.CALIBRATION, layout.WINDOWS, layout.PRUNED, layout.RECOVERED),
    *(layout.EVALUATIONS, layout.MEASUREMENTS, layout.LATENCIES),
)
# Of what has weights: its record, the name of its tokens in spec and record, what is done on them.
_WEIGHTS = {
    layout.PRUNED: (layout.RECORD, "calibration", "calibrated"),
    layout.RECOVERED: (layout.RECOVERY, "text", "trained"),
}
_TEXTS = ("results.csv", "layers.csv", "windows.csv", "report.html")
_FOLDERS = {"tables": "tabulate", "figures": "plot"}
_ORIGIN, _TRACKING = "origin.json", "tracking.json"
# What comparisons with golden values print.
_REPORTS = ("regression.txt", "regression.md", "regression.xml", "accept.txt")
_TIMESTAMP = ".snakemake_timestamp"  # Snakemake's, in the folders that rules make
_LOGS = "logs"  # of jobs, which say how results were made and are none


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str  # one of KINDS
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.kind:9} {self.path} {self.reason}"


class Verification:
    """Hashes all results of a suite anew, and compares their records with today's inputs.

    Args:
        suite: whose results these are.
        results: the folder that they lie in.
        folder: the suite's own, below it.
    """

    def __init__(self, suite: Suite, results: Path, folder: Path) -> None:
        self.suite = suite
        self.results = results
        self.folder = folder
        self.things = things_of(suite.runs)
        self._hashes: dict[str, dict[str, str]] = {}  # of what later results were made from

    def findings(self) -> Iterator[Finding]:
        """Everything that is damaged, missing or stale, and then what is orphaned."""
        for kind in HOMES:
            for (of, _), thing in self.things.items():
                if of == kind:
                    yield from self._thing(thing)
        if any(TESTBED_TASK in run.evaluation.tasks for run in self.suite.runs):
            items = self.results / layout.CONTINUATIONS
            yield from self._folder(items, stage_fingerprint("continuations"))
        yield from self._suite()
        if (self.results / layout.INDEX).exists():  # a workflow that failed wrote none
            yield from _intact(self.results / layout.INDEX)
        yield from self._orphans()

    def current(self, found: Iterable[Finding]) -> int:
        """How many of the things that the suite is made of nothing was found about."""
        wrong = {part for finding in found for part in (finding.path, *finding.path.parents)}
        return sum(self.results / kind / name not in wrong for kind, name in self.things)

    def _thing(self, thing: Thing) -> Iterator[Finding]:
        place = self.results / thing.kind / thing.spec.id
        if thing.kind in (layout.MODELS, layout.CALIBRATION, layout.WINDOWS):
            yield from self._folder(place, thing.fingerprint)
        elif thing.kind in _WEIGHTS:
            yield from self._weights(place, thing)
        elif thing.kind == layout.EVALUATIONS:
            yield from self._evaluation(place, thing)
        else:
            yield from self._record(place / layout.LATENCY, thing.fingerprint)
            yield from _strangers(place, {layout.LATENCY, _LOGS})

    def _folder(self, folder: Path, today: Fingerprint) -> Iterator[Finding]:
        if not folder.is_dir():
            yield Finding("missing", folder, "does not exist; run its rule")
            return
        try:
            manifest = verify_manifest(folder, "its rule", anew=True)
        except UserError as error:
            yield Finding("damaged", folder, f"({error})")
            return
        yield from _stale(folder, today, manifest)
        if "tokens_sha256" in manifest:
            self._hashes[folder.name] = {"tokens": manifest["tokens_sha256"]}
        known = {name.partition("/")[0] for name in manifest["files"]}
        yield from _strangers(folder, {MANIFEST, *known})
        yield from _leftovers(folder.parent.glob(f".{folder.name}.*"))

    def _weights(self, place: Path, thing: Thing) -> Iterator[Finding]:
        record: dict[str, Any] = {}
        spec: Any = thing.spec
        name, text, use = _WEIGHTS[thing.kind]
        yield from self._record(place / name, thing.fingerprint, into=record)
        if record:
            self._hashes[place.name] = record["weights"]
            tokens = getattr(spec, text)
            drawn = self._hashes.get(tokens.id) if tokens else None
            if drawn and record[text]["tokens_sha256"] != drawn["tokens"]:
                yield Finding("stale", place / name, f"was {use} on other tokens")
            if thing.kind == layout.RECOVERED and spec.pruning is not None:
                yield from self._anew(place / name, record, self._of_pruned(spec.pruning), use)
        checkpoint = place / layout.CHECKPOINT
        if checkpoint.exists():  # otherwise it was not kept
            yield from self._folder(checkpoint, thing.fingerprint)
        partial_work = f"{layout.CHECKPOINT}.partial"  # of a job that was killed: it goes on
        yield from _strangers(place, {name, layout.CHECKPOINT, partial_work, _LOGS})

    def _evaluation(self, place: Path, thing: Thing) -> Iterator[Finding]:
        record: dict[str, Any] = {}
        file = place / layout.EVALUATION
        yield from self._record(file, None, into=record)
        spec = thing.spec
        assert isinstance(spec, EvaluationSpec)
        for part in spec.parts() if record else ():
            made = _part_of(record, part)
            yield from _stale(file, fingerprint(part, thing.place), made)
            yield from self._anew(file, made, self._upstream(part), "measured")
        for part in spec.parts():
            measurement = self.results / layout.MEASUREMENTS / f"{part.id}.json"
            if measurement.exists():
                yield from self._record(measurement, None)
        yield from _strangers(place, {layout.EVALUATION, _LOGS})

    def _upstream(self, part: EvaluationSpec) -> dict[str, str]:
        """Hashes that a part's record must have, of what lies here now."""
        found: dict[str, str] = {}
        if not isinstance(part.model, ModelSpec):
            found |= self._of_pruned(part.model)
        for windows in part.windows:
            if windows.id in self._hashes:
                found["windows"] = self._hashes[windows.id]["tokens"]
        return found

    def _of_pruned(self, model: Spec) -> dict[str, str]:
        """Hashes of the weights of a pruned model, as what is made of it records them."""
        weights = self._hashes.get(model.id, {})
        return {f"pruned {name}": value for name, value in weights.items()}

    def _anew(
        self, file: Path, made: dict[str, Any], upstream: dict[str, str], use: str
    ) -> Iterator[Finding]:
        inputs = made.get("provenance", {}).get("fingerprint", {}).get("inputs", {})
        for name, found in upstream.items():
            if inputs.get(name) != found:
                yield Finding("stale", file, f"was {use} before {name} was made anew")

    def _record(
        self, file: Path, today: Fingerprint | None, into: dict[str, Any] | None = None
    ) -> Iterator[Finding]:
        read: dict[str, Any] = {}
        damage = list(_checked(file, lambda path: read.update(read_json(path, sealed=True))))
        yield from damage
        if not damage and today is not None:
            yield from _stale(file, today, read)
        if into is not None:
            into.update(read)

    def _suite(self) -> Iterator[Finding]:
        folder = self.folder
        listed: dict[str, Any] = {}
        yield from self._record(folder / layout.RUNS, None, into=listed)
        if listed and [run["run"] for run in listed["runs"]] != [r.name for r in self.suite.runs]:
            yield Finding("stale", folder / layout.RUNS, "lists other runs than the suite has")
        yield from self._record(folder / _ORIGIN, stage_fingerprint("collect"))
        for name in _TEXTS:
            yield from _intact(folder / name)
        for name, stage in _FOLDERS.items():
            yield from self._folder(folder / name, stage_fingerprint(stage))
        if (folder / _TRACKING).exists():
            yield from self._record(folder / _TRACKING, None)
        known = {*_TEXTS, *(name + CHECKSUM for name in _TEXTS), *_FOLDERS, *_REPORTS}
        yield from _strangers(folder, {*known, layout.RUNS, _ORIGIN, _TRACKING, _LOGS})

    def _orphans(self) -> Iterator[Finding]:
        """What lies in a home and neither this suite nor the list of another one names."""
        wanted = _named(listing(self.suite))
        for runs in sorted(self.results.glob(f"{layout.SUITES}/*/{layout.RUNS}")):
            try:
                wanted |= _named(read_json(runs, sealed=True))
            except (UserError, KeyError, TypeError) as error:
                reason = f"cannot be read, so nobody can say what is orphaned ({error})"
                yield Finding("damaged", runs, reason)
                return
        for kind in HOMES:
            for path in sorted((self.results / kind).glob("[!.]*")):
                name = path.name.removesuffix(f"-{_LOGS}").removesuffix(".json")
                if name not in wanted:
                    yield Finding("orphaned", path, "is of no suite that has been run here")


def _named(listed: dict[str, Any]) -> set[str]:
    """All names of things in a list of runs."""
    found: set[str] = set()
    for run in listed["runs"]:
        for kind in HOMES:
            names = run.get(kind)  # lists of before models were among them have none
            found |= set(names) if isinstance(names, list) else {names}
    return found


def _part_of(record: dict[str, Any], part: EvaluationSpec) -> dict[str, Any]:
    if not part.windows and not part.tasks:
        return record["size"]
    kinds = ("corpora",) if part.windows else ("tasks", "texts")
    if part.divergence:
        kinds = ("divergences",)
    return next((record[k][part.readable] for k in kinds if part.readable in record[k]), {})


def _stale(path: Path, today: Fingerprint, record: dict[str, Any]) -> Iterator[Finding]:
    before = record.get("provenance", {}).get("fingerprint", {})
    if differing := today.differences(before):
        yield Finding("stale", path, f"was made before a change of {', '.join(differing)}")


def _intact(file: Path) -> Iterator[Finding]:
    """What is wrong with a text file that has its checksum beside it."""
    return _checked(file, partial(verify_text, required=True, anew=True))


def _checked(file: Path, check: Callable[[Path], object]) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding("missing", file, "does not exist; run its rule")
        return
    try:
        check(file)
    except UserError as error:
        yield Finding("damaged", file, f"({error})")


def _strangers(folder: Path, known: set[str]) -> Iterator[Finding]:
    found = folder.iterdir() if folder.is_dir() else ()
    yield from _leftovers(path for path in found if path.name not in {*known, _TIMESTAMP})


def _leftovers(paths: Iterable[Path]) -> Iterator[Finding]:
    for path in sorted(paths):
        yield Finding("orphaned", path, "was written by no finished job")
