"""How a suite stands by what was recorded of it: cheap, for nothing is hashed anew.

`verify` says more: it reads all results again, and asks what the configuration is today.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import layout
from ..artifacts import MANIFEST, read_json
from ..errors import UserError
from ..identity.fingerprints import changed_since

_NAMED = 4  # modules and libraries, in a reason
_HOMES = {
    layout.EVALUATIONS: layout.EVALUATION,
    layout.PRUNED: layout.RECORD,
    layout.RECOVERED: layout.RECOVERY,
}


@dataclass(frozen=True)
class Standing:
    """`current`, `stale`, `incomplete` or `damaged`, and why."""

    state: str
    reason: str = ""


def standing(suite: Path) -> Standing:
    """How the suite in this folder stands; what no record tells is taken to be as it was."""
    try:
        return _standing(suite)
    except UserError as error:
        return Standing("damaged", str(error))
    except (AttributeError, KeyError, TypeError) as error:
        return Standing("damaged", f"a record lacks {error}")


def _standing(suite: Path) -> Standing:
    if not (suite / layout.RUNS).is_file():
        return Standing("incomplete", "its runs are not listed yet")
    runs = read_json(suite / layout.RUNS, sealed=True)["runs"]
    lacking = sum(not _has_results(suite.parent.parent, run) for run in runs)
    if lacking:
        return Standing("incomplete", f"{lacking} of {len(runs)} runs have no results")
    records = [suite / "origin.json", *(suite / name / MANIFEST for name in ("tables", "figures"))]
    if missing := [file for file in (*records, suite / "report.html") if not file.is_file()]:
        return Standing("incomplete", f"{missing[0].relative_to(suite)} is not there yet")
    changed: dict[str, None] = {}
    for file in records:
        record = read_json(file, sealed=True)
        for made in (record["provenance"]["fingerprint"], record.get("results_of", {})):
            changed |= dict.fromkeys(changed_since(made))
    if not changed:
        return Standing("current")
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return Standing("stale", f"made before a change of {', '.join([*changed][:_NAMED])}{more}")


def _has_results(results: Path, run: dict[str, Any]) -> bool:
    homes = ((kind, run.get(kind), name) for kind, name in _HOMES.items())  # older lists lack some
    files = (results / kind / home / name for kind, home, name in homes if home)
    return all(file.is_file() for file in files)
