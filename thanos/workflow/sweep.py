"""A suite without a file: what is swept on the command line, run by the same workflow."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .. import layout
from ..artifacts import write_text
from ..config import GROUPS, Folders, axis
from ..config.checks import NAME
from ..errors import UserError
from ..identity.spec import digest
from ..paths import PROJECT, expanded
from .options import encoded
from .suite_files import suite_files, sweeps_of
from .suites import Suite, compose_suite

_NO_AXES = (*GROUPS, "pattern", "seed")  # tables compare these anyway


@dataclass(frozen=True)
class Launch:
    """How a suite is run.

    Attributes:
        results: the folder that all results lie in.
        folders: of the user's own, like `conf/`.
        profile: folder of a Snakemake profile; None: this machine.
        cores: of this machine; None: all.
        dry_run: only list the jobs.
    """

    results: Path
    folders: Folders = ()
    profile: Path | None = None
    cores: int | None = None
    dry_run: bool = False


def sweep_of(overrides: Sequence[str], folders: Folders = ()) -> dict[str, Any]:
    """The suite of all combinations of the values that overrides name, as a suite file has it.

    Raises:
        UserError: an override is none, or has no end of values.
    """
    swept = dict(axis(override, folders) for override in overrides)
    block = {key: values if len(values) > 1 else values[0] for key, values in swept.items()}
    axes = [key for key, values in swept.items() if len(values) > 1 and key not in _NO_AXES]
    title = " ".join(overrides) or "defaults"
    return {"title": title, **({"axis": axes} if axes else {}), "runs": [block]}


def run_sweep(overrides: Sequence[str], name: str | None, launch: Launch) -> tuple[Suite, int]:
    """Run the workflow for a suite without a file; returns it, and the workflow's exit status.

    Args:
        overrides: whose values are swept over.
        name: of its folder; None: made of what is swept, so that the same command goes on.
        launch: how.

    Raises:
        UserError: a run does not compose, or the name is another suite's.
    """
    sweep = sweep_of(overrides, launch.folders)
    name = name or f"sweep-{digest(sweep['runs'])[:8]}"
    if not re.fullmatch(NAME, name):
        raise UserError(f"--name {name!r} must be made of letters, digits, '.', '_' and '-'")
    if name in suite_files(launch.folders) or name in _targets():
        raise UserError(f"--name {name}: there is a suite or rule of that name; give another")
    suite = compose_suite(name, sweep, folders=launch.folders)
    if not launch.dry_run:
        _keep(name, sweep, launch.results / layout.SWEEPS)
        return suite, snakemake(name, launch)
    known = {*suite_files(sweeps_of(launch.results))}
    with tempfile.TemporaryDirectory() as folder:
        if name not in known:
            _keep(name, sweep, Path(folder) / layout.SWEEPS)
            launch = replace(launch, folders=(*launch.folders, f"{folder}/{layout.SWEEPS}"))
        return suite, snakemake(name, launch)


def _targets() -> set[str]:
    """Names that the workflow has given to rules: a suite is a rule as well."""
    files = [PROJECT / "Snakefile", *(PROJECT / "rules").glob("*.smk")]
    named = re.compile(r"^(?:rule|use rule \w+ as) (\w+)", flags=re.MULTILINE)
    return {name for file in files for name in named.findall(file.read_text(encoding="utf-8"))}


def _keep(name: str, sweep: dict[str, Any], place: Path) -> None:
    """Write a sweep where the workflow finds it, today and when it is repeated."""
    file = place / "suite" / f"{name}.yaml"
    if file.is_file():
        if yaml.safe_load(file.read_text(encoding="utf-8"))["runs"] != sweep["runs"]:
            raise UserError(f"--name {name}: {file} is another sweep; give another name")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=100))


def snakemake(target: str, launch: Launch, overrides: Sequence[str] = (), size: str = "") -> int:
    """Run the workflow for a suite, in the working directory, and return its exit status."""
    command = [sys.executable, "-m", "snakemake", target, "--snakefile", str(PROJECT / "Snakefile")]
    if launch.profile is not None:
        command += ["--profile", str(launch.profile)]
    if launch.cores is not None:
        command += ["--cores", str(launch.cores)]
    if launch.dry_run:
        command += ["--dry-run"]
    options = [f"results={encoded(str(launch.results))}"]
    options += [f"overrides={encoded(list(overrides))}"] if overrides else []
    options += [f"config_dir={encoded(list(launch.folders))}"] if launch.folders else []
    options += [f"{size}=true"] if size else []
    process = subprocess.Popen([*command, "--config", *options])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it got the signal as well, and cancels its jobs
            continue


def profile_folder(given: str) -> Path:
    """The profile of a folder, or of a name under `profiles/`.

    Raises:
        UserError: there is none.
    """
    for folder in (expanded(given), PROJECT / "profiles" / given):
        if folder.is_dir():
            return folder.absolute()
    known = sorted(path.name for path in (PROJECT / "profiles").iterdir())
    raise UserError(f"--profile {given} is no folder; known: {', '.join(known)}")
