"""What a result was made from and on: enough to make it again, or to see why it cannot be."""

import functools
import hashlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .artifacts import sha256
from .config import PROJECT, Config, hash8
from .data.sources import pinned
from .model_path import model_path
from .models.location import cached_folder

# What the bits of pruned weights depend on.
_NUMERICAL = ("torch", "transformers", "safetensors", "numpy")
_LIBRARIES = (*_NUMERICAL, "tokenizers", "datasets", "lm-eval", "pandas", "snakemake")
_MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.py")


def provenance(config: Config, started: float) -> dict[str, Any]:
    """Configuration, model, data, and all of `circumstances` behind a run's result.

    Args:
        config: of the run.
        started: `time.time()` when the work began.
    """
    evaluation, calibration = config.evaluation, config.calibration
    data = {corpus: pinned(corpus, "evaluation") for corpus in evaluation.corpora}
    facts: dict[str, Any] = {"config_hash": hash8(config.identity()), "seed": config.seed}
    facts["model"] = _model(config)
    facts["evaluation_data"] = data
    if not config.dense:
        facts["calibration_data"] = {calibration.source: pinned(calibration.source, "calibration")}
    return {**facts, **circumstances(started)}


def circumstances(started: float) -> dict[str, Any]:
    """Source revision, lock file, library versions, hardware and times.

    Args:
        started: `time.time()` when the work began.
    """
    return {
        "source": source_revision(),
        "lock_sha256": lock_hash(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            **_torch_facts(),
        },
        "started": _timestamp(started),
        "ended": _timestamp(time.time()),
    }


def library_versions() -> dict[str, str]:
    """Versions of the libraries that pruned weights depend on."""
    return {name: version(name) for name in _NUMERICAL}


def source_revision() -> dict[str, Any]:
    """The git revision of the project, whether the tree differs from it, and the source's hash."""
    revision = _git("rev-parse", "HEAD")
    dirty = None if revision is None else bool(_git("status", "--porcelain"))
    return {"revision": revision, "dirty": dirty, "sha256": source_hash()}


@functools.cache
def source_hash() -> str:
    """The sha256 of the package and the lock file: what results depend on, committed or not."""
    files = [f for f in (PROJECT / "thanos").rglob("*") if f.is_file() and f.suffix != ".pyc"]
    return _combined([*files, *_lock_file()], PROJECT)


def lock_hash() -> str | None:
    """The sha256 of the lock file; None where the package is installed without it."""
    return next(map(sha256, _lock_file()), None)


def _lock_file() -> list[Path]:
    lock = PROJECT / "envs" / "lock.txt"
    return [lock] if lock.is_file() else []


def _model(config: Config) -> dict[str, Any]:
    """Where the model is from, and which one it was: the hub's commit, or a hash of its files."""
    model = config.model
    facts = {"path": model.path, "revision": model.revision}
    folder = cached_folder(model_path(config), model.revision)
    if folder is None:
        return facts
    if folder.parent.name == "snapshots":
        return {**facts, "commit": folder.name}
    files = {file for pattern in _MODEL_FILES for file in folder.glob(pattern)}
    return {**facts, "sha256": _combined(files, folder)}


def _combined(files: Any, root: Path) -> str:
    lines = sorted(f"{file.relative_to(root).as_posix()} {sha256(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's model name; its architecture where the system does not tell."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _torch_facts() -> dict[str, Any]:
    """Threads and GPU of a stage that computes; others do not import torch for it."""
    if "torch" not in sys.modules:
        return {}
    import torch

    facts: dict[str, Any] = {"threads": torch.get_num_threads()}
    return facts | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
