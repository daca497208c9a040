"""Hash all results of a suite anew and list what is damaged, missing or orphaned.

    python -m thanos.stages.verify results/suites/demo --runs <run folder> ... --tokens <folder> ...

Damaged: the content is not what was written. Missing: a result that the suite should have.
Orphaned: a file that no rule wrote, such as what a killed job left, or a run of no suite. The
status is 1 if anything is damaged or missing; each line says how to put it right.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..artifacts import CHECKSUM, MANIFEST, read_json, verify_manifest, verify_text
from ..config import load
from ..errors import UserError
from ..reporting.frame import from_csv
from .command import parser, run_command

KINDS = ("damaged", "missing", "orphaned")
TEXTS = ("results.csv", "layers.csv", "windows.csv", "report.html")
FOLDERS = {"tables": "rule tables", "figures": "rule figures"}
TRACKING = "tracking.json"
# What comparisons with golden values print.
REPORTS = ("regression.txt", "regression.md", "regression.xml", "accept.txt")
TIMESTAMP = ".snakemake_timestamp"  # Snakemake's, in the folders that rules make
LOGS = "logs"  # of jobs, which say how results were made and are none


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str  # one of KINDS
    what: str


def verify_suite(suite: Path, runs: Iterable[Path], tokens: Iterable[Path]) -> Iterator[Finding]:
    """Everything that is wrong with a suite's results, and with what they were made from.

    Args:
        suite: `results/suites/<suite>`.
        runs: folders of the suite's runs.
        tokens: folders of the token ids and items that the runs use.
    """
    runs = list(runs)
    for folder in tokens:
        yield from _folder(folder, "its rule")
        yield from _leftovers(folder.parent.glob(f".{folder.name}.*"))
        configuration = folder.with_name(f"{folder.name}.yaml")
        if configuration.exists():
            yield from _checked(configuration, partial(verify_text, required=True))
    for folder in runs:
        yield from _run(folder)
    for name in TEXTS:
        yield from _checked(suite / name, partial(verify_text, required=True))
    for name, maker in FOLDERS.items():
        yield from _folder(suite / name, maker)
    if (suite / TRACKING).exists():
        yield from _checked(suite / TRACKING, partial(read_json, sealed=True))
    known = {*TEXTS, *(name + CHECKSUM for name in TEXTS), *FOLDERS, TRACKING, *REPORTS, LOGS}
    yield from _orphans(suite, known)
    yield from _runs_of_no_suite(suite.parent, {_name(folder) for folder in runs})


def _run(folder: Path) -> Iterator[Finding]:
    config = folder / "config.yaml"
    damaged = list(_checked(config, load))
    yield from damaged or _checked(config, partial(verify_text, required=True))
    expected = ["perplexity.json", "zero_shot.json", "size.json"]
    expected += [] if folder.parent.name == "dense" else ["pruning.json"]
    expected += ["efficiency.json"] if (folder / "efficiency.json").exists() else []
    for name in expected:
        yield from _checked(folder / name, partial(read_json, sealed=True))
    known = {*expected, config.name, config.name + CHECKSUM, LOGS, "checkpoint"}
    if (folder / "checkpoint").exists():
        yield from _folder(folder / "checkpoint", "rule prune")
    yield from _orphans(folder, known)


def _folder(folder: Path, maker: str) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("missing", f"{folder} does not exist; run {maker}")
        return
    try:
        known = set(verify_manifest(folder, maker)["files"])
    except UserError as error:
        yield Finding("damaged", str(error))
        return
    yield from _orphans(folder, {MANIFEST, *(name.partition("/")[0] for name in known)})


def _checked(file: Path, check: Callable[[Path], object]) -> Iterator[Finding]:
    if not file.is_file():
        yield Finding("missing", f"{file} does not exist; run its rule")
        return
    try:
        check(file)
    except UserError as error:
        yield Finding("damaged", str(error))


def _orphans(folder: Path, known: set[str]) -> Iterator[Finding]:
    found = folder.iterdir() if folder.is_dir() else ()
    yield from _leftovers(path for path in found if path.name not in {*known, TIMESTAMP})


def _leftovers(paths: Iterable[Path]) -> Iterator[Finding]:
    for path in sorted(paths):
        yield Finding("orphaned", f"{path} was written by no finished job; delete it")


def _runs_of_no_suite(suites: Path, verified: set[str]) -> Iterator[Finding]:
    """Run folders that neither this suite has, nor the results of any other."""
    known = set(verified)
    for results in suites.glob("*/results.csv"):
        try:
            known |= set(from_csv(results.read_text(encoding="utf-8"))["run"])
        except (ValueError, KeyError):
            continue  # damaged, which is found where its own suite is verified
    for folder in sorted((suites.parent / "runs").glob("*/*/*")):
        if _name(folder) not in known:
            yield Finding("orphaned", f"{folder} is a run of no finished suite; delete it if so")


def _name(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("suite", type=Path)
    arguments.add_argument("--runs", type=Path, nargs="+", required=True)
    arguments.add_argument("--tokens", type=Path, nargs="*", default=[])
    given = arguments.parse_args()
    findings = list(verify_suite(given.suite, given.runs, given.tokens))
    for finding in findings:
        sys.stdout.write(f"{finding.kind:9} {finding.what}\n")
    counts = {kind: sum(finding.kind == kind for finding in findings) for kind in KINDS}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    sys.stdout.write(f"{given.suite}: {len(given.runs)} runs verified, {summary}\n")
    if counts["damaged"] or counts["missing"]:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
