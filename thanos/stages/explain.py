"""Say what a result was made from, and print the exact commands that make it again.

    python -m thanos.stages.explain results/runs/doc-llama/2-4/thanos-1a2b3c4d/perplexity.json

Takes any result: a run's folder or file, tokens, tables, figures, a checkpoint, what one run by
hand left. Where this tree is not the one that made it, that is said.
"""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..artifacts import MANIFEST, read_json
from ..config import GROUPS, Config, load, options, resolve
from ..errors import UserError
from ..provenance import lock_hash, source_revision
from .command import parser, run_command

# Any suite whose axes a run's overrides all replace; its folders do not depend on the suite.
SUITE = "demo"
_RECORDS = ("perplexity.json", "pruning.json", "metrics.json")


def find_provenance(result: Path) -> tuple[dict[str, Any], Path | None]:
    """The provenance of a result, and the configuration file of its run if it is of one.

    Raises:
        UserError: it has none, or is damaged.
    """
    if not result.exists():
        raise UserError(f"{result} does not exist")
    folder = result if result.is_dir() else result.parent
    candidates = [result] if result.suffix == ".json" else []
    candidates += [folder / name for name in (*_RECORDS, MANIFEST, f"tables/{MANIFEST}")]
    for file in candidates:
        if file.is_file() and "provenance" in (values := read_json(file)):
            near = (folder / "config.yaml", folder.parent / "config.yaml")
            config = next((c for c in (*near, folder.with_suffix(".yaml")) if c.is_file()), None)
            return values["provenance"], config
    raise UserError(f"{result} is no result of a run or a suite: nothing beside it says its making")


def overrides_of(config: Config) -> list[str]:
    """Hydra overrides that resolve to the same run, groups first and as few as possible."""
    chosen: list[str] = []
    for group in GROUPS:
        if group == "tracking":  # no part of a run's identity
            continue
        wanted = vars(getattr(config, group))
        found = []
        for name in options(group):
            if name == "dense" and not config.dense:
                continue
            values = _group(group, name)
            differing = [f"{group}.{k}={_text(v)}" for k, v in wanted.items() if values.get(k) != v]
            found.append((len(differing), [f"{group}={name}", *differing]))
        chosen += min(found)[1]
    plain = ("outlier_fraction", "seed", "precision", "layer_errors")
    if not config.dense:
        chosen.append(f"pattern={config.pattern}")
        chosen += [f"{key}={_text(getattr(config, key))}" for key in plain]
    return chosen


def _group(group: str, name: str) -> dict[str, Any]:
    """The values that an option of a group resolves to; none where it needs others to be given."""
    try:
        return vars(getattr(resolve([f"{group}={name}"]), group))
    except UserError:
        return {}


def _text(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)


def explain(result: Path) -> Iterator[str]:
    """The lines that `main` prints."""
    made, file = find_provenance(result)
    config = load(file) if file else None
    yield from _facts(made)
    yield ""
    yield "the same source and environment:"
    source = made["source"]
    yield f"  git checkout {source['revision'] or '<the revision is unknown>'} && make setup"
    here = source_revision()
    if source["dirty"]:
        yield "  (the tree had changes beyond that revision, which no command restores)"
    if source["sha256"] != here["sha256"]:
        yield f"  (this tree's source differs: sha256 {here['sha256'][:12]}…)"
    if made["lock_sha256"] != lock_hash():
        yield "  (this tree's lock file differs)"
    yield from _commands(result, config)


def _facts(made: dict[str, Any]) -> Iterator[str]:
    source = made["source"]
    changes = "with changes" if source["dirty"] else "clean"
    yield f"made      {made['started']} to {made['ended']}"
    yield f"source    {source['revision']} ({changes}), sha256 {source['sha256'][:12]}…"
    yield f"lock      sha256 {(made['lock_sha256'] or 'unknown')[:12]}…"
    yield f"versions  Python {made['python']}, " + ", ".join(
        f"{name} {version}" for name, version in made["versions"].items()
    )
    yield "hardware  " + ", ".join(f"{key} {value}" for key, value in made["hardware"].items())
    if "config_hash" in made:
        yield f"config    {made['config_hash']}, seed {made['seed']}"
        yield "model     " + ", ".join(f"{k} {v}" for k, v in made["model"].items() if v)
        for kind in ("calibration_data", "evaluation_data"):
            for name, pinned in made.get(kind, {}).items():
                at = f" at {pinned['repository']}@{pinned['revision']}" if pinned else ""
                yield f"{kind.partition('_')[0]:9} {name}{at}"


def _commands(result: Path, config: Config | None) -> Iterator[str]:
    parts = result.absolute().parts
    root = next((i for i in range(len(parts) - 1, 0, -1) if parts[i] in ("runs", "suites")), None)
    yield ""
    yield "by the workflow:"
    if config is None or "suites" in parts:
        suite = parts[root + 1] if root is not None and len(parts) > root + 1 else SUITE
        quick = " --config quick=true" if suite.endswith("-quick") else ""
        yield f"  snakemake {suite.removesuffix('-quick')}{quick}"
        return
    overrides = overrides_of(config)
    target, given = "", [f"overrides={shlex.join(overrides)}"]
    if root is not None and "checkpoint" not in parts and len(parts) > root + 3:
        folder = Path(*parts[: root + 4])
        results = Path(*parts[:root])
        results = results.relative_to(Path.cwd()) if results.is_relative_to(Path.cwd()) else results
        run = folder.relative_to(Path(*parts[:root]))
        target = f"{results}/{run}/perplexity.json"
        given += [f"results={results}"] if str(results) != "results" else []
    yield f"  snakemake {shlex.quote(target or SUITE)} --config {shlex.join(given)}"
    yield ""
    yield "by hand, in one command:"
    yield f"  python -m thanos {shlex.join(overrides)} output_dir=out"
    if target:
        yield ""
        yield "by hand, stage by stage, from the configuration beside it:"
        yield from (f"  {line}" for line in _stages(Path(target).parent, config))


def _stages(run: Path, config: Config) -> Iterator[str]:
    stage, file = "python -m thanos.stages.", run / "config.yaml"
    evaluation = f"{stage}evaluate {file}"
    if not config.dense:
        yield f"{stage}calibrate {file} --output tokens"
        yield f"{stage}prune {file} --calibration tokens --checkpoint pruned --record pruning.json"
        evaluation += " --checkpoint pruned"
    if config.evaluation.corpora:
        yield f"{stage}corpora {file} --output windows"
        evaluation += " --windows windows"
    if "doc_continuation" in config.evaluation.tasks:
        yield f"{stage}continuations --output items"
        evaluation += " --items items"
    yield f"{evaluation} --perplexity perplexity.json --zero-shot zero_shot.json --size size.json"


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("result", type=Path)
    for line in explain(arguments.parse_args().result):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    run_command(main)
