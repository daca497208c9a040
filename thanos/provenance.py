"""What a result was made from and on."""

import hashlib
import os
import platform
import subprocess
import time
from importlib.metadata import version
from typing import Any

from .config import PROJECT, Config, hash8

_LIBRARIES = ("torch", "transformers", "safetensors", "numpy")


def provenance(config: Config, started: float) -> dict[str, Any]:
    """Revision, lock file, configuration, hardware, versions and times behind a result.

    Args:
        config: of the run.
        started: `time.time()` when the work began.
    """
    return {"config_hash": hash8(config.identity()), "seed": config.seed, **machine(started)}


def machine(started: float) -> dict[str, Any]:
    """What a result depends on besides its configuration: revision, lock file, hardware, versions.

    Args:
        started: `time.time()` when the work began.
    """
    return {
        "source": source_revision(),
        "lock_sha256": _lock_hash(),
        "versions": library_versions(),
        "python": platform.python_version(),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), **_gpu()},
        "started": _timestamp(started),
        "ended": _timestamp(time.time()),
    }


def library_versions() -> dict[str, str]:
    """Versions of the libraries that numbers depend on."""
    return {name: version(name) for name in _LIBRARIES}


def source_revision() -> dict[str, Any]:
    """The git revision of the project and whether the tree differs from it."""
    revision = _git("rev-parse", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": None}
    return {"revision": revision, "dirty": bool(_git("status", "--porcelain"))}


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _lock_hash() -> str | None:
    lock = PROJECT / "envs" / "lock.txt"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None


def _gpu() -> dict[str, str]:
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
