"""The commands that make results again, as a user would type them."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .options import line_of
from .suite_files import suite_of


def by_hand(run: dict[str, Any], listed: dict[str, Any]) -> str:
    """The command of one run by itself, as a suite's list has the run."""
    folders = [word for folder in listed.get("config_dir", []) for word in ("--config-dir", folder)]
    return shlex.join(["python", "-m", "thanos", *folders, *run["overrides"], "output_dir=out"])


def by_workflow(
    target: str, suite: str, listed: dict[str, Any], results: Path, *options: str
) -> str:
    """The command for a target of a suite, as the suite was listed.

    Args:
        target: a rule, or a file.
        suite: the name of its folder.
        listed: its list of runs; empty where it has none.
        results: the results folder.
        options: more of Snakemake's `--config`.
    """
    _, size = suite_of(suite)
    given: Sequence[str] = [*options, *([f"{size}=true"] if size else [])]
    if overrides := listed.get("overrides"):
        given = [*given, f"overrides={line_of(overrides)}"]
    if folders := listed.get("config_dir"):
        given = [*given, f"config_dir={json.dumps(folders, ensure_ascii=False)}"]
    if not is_default(results):
        given = [*given, f"results={results}"]
    return shlex.join(["snakemake", target, *(["--config", *given] if given else [])])


def of_suite(suite: str, listed: dict[str, Any], results: Path) -> dict[str, str]:
    """What remakes, verifies and explains the results of a suite, by its folder's name."""
    name, _ = suite_of(suite)
    return {
        "suite": by_workflow(name, suite, listed, results),
        "verify": by_workflow("verify", suite, listed, results, f"suite={name}"),
        "explain": f"python -m thanos.stages.explain {shlex.quote(str(results))}/pruned/<id>",
    }


def is_default(results: Path) -> bool:
    """Whether commands need not name this results folder."""
    return results.absolute() == Path("results").absolute()
