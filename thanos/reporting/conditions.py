"""What results were made under: alike for all runs of a table, or the table is refused."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from thanos.errors import UserError
from thanos.reporting.run_files import RunFiles

_NAMED = 3  # runs of each kind, in a message


@dataclass
class Conditions:
    """Gathered run by run: what must be alike, and where the results are from."""

    _alike: dict[tuple[str, ...], dict[str, list[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    _origin: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    _times: list[str] = field(default_factory=list)

    def add(self, run: RunFiles) -> RunFiles:
        """Take in what the records of a run say, and return the run."""
        for part, record in run.records():
            made = record.get("provenance")
            if made is None:
                raise UserError(f"{run.name}: {part} has no provenance; run its rule again")
            for condition, value in _conditions(run, part, made):
                self._alike[condition][value].append(run.name)
            for name, value in _facts(made):
                self._origin[name][value] = None
            self._times += [made["started"], made["ended"]]
        return run

    def check(self) -> None:
        """Refuse results that were made under different conditions.

        Raises:
            UserError: the message names the condition, and runs of each kind.
        """
        for condition, values in self._alike.items():
            if len(values) > 1:
                kinds = "; ".join(f"{value}: {_some(runs)}" for value, runs in values.items())
                raise UserError(
                    f"results that differ in {' '.join(condition)} make no table ({kinds}); "
                    "run what is older again, see `snakemake verify`"
                )

    def results_of(self) -> dict[str, dict[str, str]]:
        """The code and the libraries that made the results, each by its name and once `check`ed."""
        made: dict[str, dict[str, str]] = {"code": {}, "libraries": {}}
        for condition, values in self._alike.items():
            if condition[0] in made:
                made[condition[0]][condition[1]] = next(iter(values))
        return made

    def origin(self) -> dict[str, Any]:
        """Revisions, hardware, versions and times, for the report."""
        listed: dict[str, Any] = {name: list(values) for name, values in self._origin.items()}
        if self._times:
            listed |= {"From": [min(self._times)], "To": [max(self._times)]}
        return listed


def _conditions(
    run: RunFiles, part: str, made: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Names and values; a module or input that only some runs have is compared among those."""
    for kind, values in made["fingerprint"].items():
        if kind == "inputs":  # what differs there is another thing, of another spec
            continue
        for name, value in values.items():
            yield (kind, name), value
    if used := made.get("used"):
        yield ("device",), used["device"]
        yield ("dtype", "of", str(run.columns["model"])), used["dtype"]


def _facts(made: dict[str, Any]) -> Iterator[tuple[str, str]]:
    source, used = made["source"], made.get("used", {})
    changes = ", with uncommitted changes" if source["dirty"] else ""
    yield "Revision", (source["revision"] or "not from a git checkout") + changes
    yield "Lock file (sha256)", str(made["lock_sha256"])
    yield "Hardware", ", ".join(f"{key} {value}" for key, value in made["hardware"].items())
    if used:
        yield "Computed on", ", ".join(f"{key} {value}" for key, value in used.items())
    versions = ", ".join(f"{key} {value}" for key, value in made["versions"].items())
    yield "Versions", f"Python {made['python']}, {versions}"


def _some(runs: Iterable[str]) -> str:
    different = list(dict.fromkeys(runs))
    more = len(different) - _NAMED
    return ", ".join(different[:_NAMED]) + (f" and {more} more" if more > 0 else "")
