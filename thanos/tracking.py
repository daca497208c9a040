"""Weights & Biases: a record of finished results, never a condition for them.

Tracking comes after the results are on disk. Offline is the default; whatever goes wrong inside
W&B (or without it) is a warning in the log, and the pipeline goes on.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from thanos.errors import UserError
from thanos.reporting.collecting import collect
from thanos.reporting.measures import records
from thanos.reporting.run_files import RunFiles

MODES = ("offline", "online", "disabled")
PROJECT = "thanos"
_LAYER_COLUMNS = ["block", "layer", "rows", "columns", "sparsity", "relative_error", "seconds"]
_SUITE_FILES = ("results.csv", "report.html", "tables", "figures")
_LONGEST_TAG = 64  # characters; the service refuses a run with a longer one
_START_SECONDS = 30  # an unreachable server is given up after this
_FINISH_SECONDS = 120
_log = logging.getLogger(__name__)


def log_run(
    finished: RunFiles,
    *,
    mode: str = "offline",
    project: str = PROJECT,
    group: str | None = None,
    directory: Path,
) -> None:
    """Record one finished run: what it is of, how it was made, its metrics and layers.

    All files go under `directory`. Model, pattern and method are tags. The W&B run's id is the
    run's hash, so a run that is logged again replaces itself. Raises UserError for an unknown
    mode; a failure of W&B is a warning.
    """
    if _is_disabled(mode):
        return
    collected = collect([finished])
    layers = collected.layers
    metrics = {
        "/".join(filter(None, (row["metric"], row["dataset"]))): row["value"]
        for row in records(collected.results)
    }
    config = {
        **finished.columns,
        "spec": finished.evaluation["spec"],
        "provenance": {part: record["provenance"] for part, record in finished.records()},
    }
    tags = tuple(_tag(str(finished.columns[key])) for key in ("model", "pattern", "method"))
    options = {"project": project, "group": group, "tags": tags}

    def write(wandb: Any, run: Any) -> None:
        logged: dict[str, Any] = dict(metrics)
        if not layers.empty:
            rows = layers[_LAYER_COLUMNS].astype(object).to_numpy().tolist()
            logged["layers"] = wandb.Table(columns=_LAYER_COLUMNS, data=rows)
        run.log(logged, step=0)

    named = {"id": run_id(finished.name), "name": finished.name}
    _record(write, mode, directory, **named, job_type="run", config=config, **options)


def log_suite(
    suite_folder: Path,
    *,
    mode: str = "offline",
    project: str = PROJECT,
    directory: Path,
) -> None:
    """Record what a suite made in one run: tables, figures, and all its files as an artifact.

    Suite and runs share the group named after the suite, if the runs were logged with it. Raises
    UserError for an unknown mode or a missing `results.csv`; a failure of W&B is a warning.
    """
    if _is_disabled(mode):
        return
    if not (suite_folder / "results.csv").is_file():
        raise UserError(f"{suite_folder / 'results.csv'}: missing; run the suite's reporting rule")
    suite = suite_folder.resolve().name
    options = {"project": project, "group": suite, "name": suite}

    def write(wandb: Any, run: Any) -> None:
        artifact = wandb.Artifact(f"suite-{suite}", type="results")
        for name in _SUITE_FILES:
            path = suite_folder / name
            if path.is_dir():
                artifact.add_dir(str(path), name=name)
            elif path.exists():
                artifact.add_file(str(path), name=name)
        run.log_artifact(artifact)
        shown: dict[str, Any] = {}
        for table in sorted((suite_folder / "tables").glob("*.csv")):
            rows = pd.read_csv(table, dtype=str, keep_default_na=False)
            shown[f"tables/{table.stem}"] = wandb.Table(dataframe=rows)
        for figure in sorted((suite_folder / "figures").glob("*.png")):
            shown[f"figures/{figure.stem}"] = wandb.Image(str(figure))
        run.log(shown, step=0)

    _record(write, mode, directory, id=f"suite-{suite}", job_type="suite", **options)


def _tag(text: str) -> str:
    """A tag as long as the service takes; of a longer one the end, which differs, stays."""
    return text if len(text) <= _LONGEST_TAG else f"…{text[1 - _LONGEST_TAG :]}"


def run_id(name: str) -> str:
    """The hash at the end of a run's name."""
    return name.rpartition("-")[2]


def _is_disabled(mode: str) -> bool:
    if mode not in MODES:
        raise UserError(f"tracking mode {mode!r}: expected one of {', '.join(MODES)}")
    return mode == "disabled"


def _record(write: Callable[[Any, Any], None], mode: str, directory: Path, **options: Any) -> None:
    """Let `write(wandb, run)` fill a quiet W&B run below `directory`; a failure is a warning."""
    try:
        directory = directory.resolve()
        before = list(_offline_folders(directory, options["id"]))
        with _contained(directory, mode):
            import wandb

            run = wandb.init(
                resume="allow",
                mode="online" if mode == "online" else "offline",
                dir=str(directory),
                settings=_settings(wandb),
                **options,
            )
            try:
                write(wandb, run)
            finally:
                run.finish()
                wandb.teardown()
        if mode == "offline":
            # Offline, W&B cannot resume: the new folder holds everything, so the old ones leave.
            for folder in before:
                shutil.rmtree(folder)
    except Exception as error:  # W&B must never cost a result
        reason = " ".join(str(error).split()) or type(error).__name__
        _log.warning("tracking: %s was not logged to W&B (%s): %s", options["id"], mode, reason)


def _offline_folders(directory: Path, identity: str) -> Iterator[Path]:
    for record in (directory / "wandb").glob(f"offline-run-*/run-{identity}.wandb"):
        yield record.parent


def _settings(wandb: Any) -> Any:
    """Results only: no console capture, no machine statistics, no copy of code or packages."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        init_timeout=_START_SECONDS,
        login_timeout=_START_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        finish_timeout_raises=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


@contextlib.contextmanager
def _contained(directory: Path, mode: str) -> Iterator[None]:
    """Send W&B's caches and logs to `directory`; the environment is as before afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    home = directory / "wandb" / "home"
    wanted = {
        "WANDB_SILENT": "true",
        "WANDB_CACHE_DIR": str(home / "cache"),
        "WANDB_DATA_DIR": str(home / "data"),
        "WANDB_ARTIFACT_DIR": str(home / "artifacts"),
    }
    if mode == "offline":  # online, the user's own settings name the server
        wanted["WANDB_CONFIG_DIR"] = str(home / "config")
    messages = logging.getLogger("wandb")
    propagate, messages.propagate = messages.propagate, False  # its own debug.log is enough
    saved = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        messages.propagate = propagate
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
