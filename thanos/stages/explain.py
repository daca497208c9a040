"""Say what a result was made from, and print the exact commands that make it again.

    python -m thanos.stages.explain results/pruned/thanos-2-4-1a2b3c4d5e6f

Takes any result: tokens, a pruned model, an evaluation, tables, figures, what one run by hand left.
Where this tree is not the one that made it, that is said.
"""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import layout
from ..artifacts import MANIFEST, read_json
from ..command import parser, run_command
from ..errors import UserError
from ..identity.code import changed_modules
from ..provenance import lock_hash
from ..workflow.commands import by_hand, by_workflow, is_default
from ..workflow.suite_files import suite_of

_RECORDS = (
    *(layout.RECORD, layout.RECOVERY, layout.EVALUATION, layout.LATENCY),
    *("metrics.json", "origin.json"),
)
# The stage that makes what has a spec, by the folder it lies in.
_STAGES = {
    layout.MODELS: "dequantize",
    layout.CALIBRATION: "calibrate",
    layout.WINDOWS: "corpora",
    layout.PRUNED: "prune",
    layout.RECOVERED: "recover",
    layout.EVALUATIONS: "evaluate",
    layout.LATENCIES: "efficiency",
}
# The file that stands for such a folder; models and tokens are the folder itself.
_TARGETS = {
    layout.PRUNED: layout.RECORD,
    layout.RECOVERED: layout.RECOVERY,
    layout.EVALUATIONS: layout.EVALUATION,
    layout.LATENCIES: layout.LATENCY,
}


def find_record(result: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The file that says how a result was made, its content, and the provenance in it.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not result.exists():
        raise UserError(f"{result} does not exist")
    folder = result if result.is_dir() else result.parent
    candidates = [result] if result.suffix == ".json" else []
    for near in (folder, folder.parent):
        candidates += [near / name for name in (*_RECORDS, MANIFEST, f"tables/{MANIFEST}")]
    for file in candidates:
        if file.is_file():
            record = read_json(file)
            for part in (record, *_parts(record)):
                if "provenance" in part:
                    return file, record, part["provenance"]
    raise UserError(f"{result} is no result of a run or a suite: nothing beside it says its making")


def _parts(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for kind in ("corpora", "perplexity", "divergences", "tasks", "texts"):
        yield from record.get(kind, {}).values()
    yield record.get("size", {})


def explain(result: Path) -> Iterator[str]:
    """The lines that `main` prints."""
    file, _, made = find_record(result)
    yield from _facts(made)
    yield ""
    yield "the same source and environment:"
    revision = made["source"]["revision"] or "<the revision is unknown>"
    yield f"  git checkout {revision} && make setup"
    if made["source"]["dirty"]:
        yield "  (the tree had changes beyond that revision, which no command restores)"
    if changed := changed_modules(made["fingerprint"]["code"]):
        yield f"  (this tree differs in {', '.join(changed)})"
    if made["lock_sha256"] != lock_hash():
        yield "  (this tree's lock file differs)"
    yield from _commands(file.absolute())


def _facts(made: dict[str, Any]) -> Iterator[str]:
    yield f"made      {made['started']} to {made['ended']}"
    changes = "with changes" if made["source"]["dirty"] else "clean"
    yield f"source    {made['source']['revision']} ({changes})"
    yield f"lock      sha256 {(made['lock_sha256'] or 'unknown')[:12]}…"
    versions = ", ".join(f"{name} {found}" for name, found in made["versions"].items())
    yield f"versions  Python {made['python']}, {versions}"
    for name, values in (
        ("hardware", made["hardware"]),
        ("used", made.get("used", {})),
        ("place", made.get("place", {})),
        ("inputs", made["fingerprint"]["inputs"]),
    ):
        if values:
            yield f"{name:9} " + ", ".join(f"{key} {value}" for key, value in values.items())


def _commands(file: Path) -> Iterator[str]:
    for folder in file.parents[:2]:
        if (folder / "metrics.json").is_file():
            made = read_json(folder / "metrics.json")
            yield from ("", "by hand, in one command:", f"  {by_hand(made, made)}")
            return
    if file.parent.name == layout.MEASUREMENTS:
        home: Path | None = file.with_suffix("")
    else:
        homes = {*_STAGES, layout.SUITES}
        home = next((path for path in file.parents if path.parent.name in homes), None)
    if home is None:
        return
    kind, results = home.parent.name, home.parent.parent
    if kind == layout.SUITES:
        list_of_runs = home / layout.RUNS
        listed = read_json(list_of_runs, sealed=True) if list_of_runs.is_file() else {}
        target, _ = suite_of(home.name)
        yield from ("", "by the workflow:", f"  {by_workflow(target, home.name, listed, results)}")
        return
    belongs = list(_lists_with(results, home.name))
    if not belongs:
        return
    _, listed, run = belongs[0]
    if kind == layout.MEASUREMENTS:  # a part of this evaluation, which is asked for as a whole
        kind, home = layout.EVALUATIONS, results / layout.EVALUATIONS / run[layout.EVALUATIONS]
        file = home / layout.EVALUATION
    target = str((home / _TARGETS.get(kind, "")).relative_to(results.parent))
    if not is_default(results):
        target = str(results.parent / target)
    yield from ("", "by the workflow:")
    lines = (by_workflow(target, suite, of, results) for suite, of, _ in belongs)
    yield from dict.fromkeys(f"  {line}" for line in lines)
    yield from (
        "",
        "by hand, in one command, a run that has it:",
        f"  {by_hand(run, listed)}",
    )
    yield from ("", "by hand, this stage alone, from its spec:")
    yield f"  {shlex.join(_stage(kind, file, results, run))}"


def _lists_with(results: Path, name: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Suites, their lists, and the first run of each that something of this name belongs to."""
    for file in sorted(results.glob(f"{layout.SUITES}/*/{layout.RUNS}")):
        listed = read_json(file, sealed=True)
        for run in listed["runs"]:
            kinds = map(run.get, (*_STAGES, layout.MEASUREMENTS))
            if any(name == of or (isinstance(of, list) and name in of) for of in kinds):
                yield file.parent.name, listed, run
                break


def _stage(kind: str, file: Path, results: Path, run: dict[str, Any]) -> Iterator[str]:
    yield from ("python", "-m", f"thanos.stages.{_STAGES[kind]}", str(file))
    of = layout.PRUNED
    if kind == layout.EVALUATIONS and run.get(layout.RECOVERED):
        of = layout.RECOVERED
    if kind in (layout.RECOVERED, layout.EVALUATIONS, layout.LATENCIES) and run[of]:
        yield from ("--checkpoint", str(results / of / run[of] / layout.CHECKPOINT))
    if kind == layout.EVALUATIONS:
        windows = [str(results / layout.WINDOWS / name) for name in run[layout.WINDOWS]]
        yield from ("--windows", *windows)
        if (results / layout.CONTINUATIONS).is_dir():
            yield from ("--items", str(results / layout.CONTINUATIONS))
        yield from ("--parts", "measurements")
    tokens = run[layout.CALIBRATION]  # with those of a training after those of the pruning
    drawn, text = tokens if isinstance(tokens, list) else (tokens, None)
    if kind == layout.PRUNED:
        if drawn:
            yield from ("--calibration", str(results / layout.CALIBRATION / drawn))
        yield from ("--checkpoint", "checkpoint", "--record", layout.RECORD)
    elif kind == layout.RECOVERED:
        yield from ("--text", str(results / layout.CALIBRATION / str(text)))
        yield from ("--output", "checkpoint", "--record", layout.RECOVERY)
    else:
        yield from ("--output", _TARGETS.get(kind, kind))


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("result", type=Path)
    for line in explain(arguments.parse_args().result):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    run_command(main)
