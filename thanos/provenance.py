"""What a result was made from and on: enough to make it again, or to see why it cannot be."""

import os
import platform
import subprocess
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .content import file_hash
from .identity import Place
from .identity.fingerprints import Fingerprint
from .paths import PROJECT

_LIBRARIES = (
    *("torch", "transformers", "safetensors", "numpy", "tokenizers"),
    *("datasets", "lm-eval", "pandas", "snakemake"),
)


def provenance(
    started: float,
    fingerprint: Fingerprint,
    *,
    place: Place | None = None,
    used: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Fingerprint, device, source revision, lock file, library versions, hardware and times.

    Args:
        started: `time.time()` when the work began.
        fingerprint: of the result.
        place: that the stage was given.
        used: what `thanos.device.used` says of a stage that computed.
    """
    return {
        "fingerprint": asdict(fingerprint),
        **({} if used is None else {"used": used}),
        **({} if place is None else {"place": place.to_json()}),
        "source": source_revision(),
        "lock_sha256": lock_hash(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))},
        "python": platform.python_version(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "started": _timestamp(started),
        "ended": _timestamp(time.time()),
    }


def source_revision() -> dict[str, Any]:
    """The git revision of the project's checkout, and whether the tree differs from it."""
    # An installed package may lie within another project's repository.
    checkout = (PROJECT / ".git").exists()
    revision = _git("rev-parse", "HEAD") if checkout else None
    dirty = None if revision is None else bool(_git("status", "--porcelain"))
    return {"revision": revision, "dirty": dirty}


def lock_hash() -> str | None:
    """The sha256 of the lock file; None where the package is installed without it."""
    lock = PROJECT / "envs" / "lock.txt"
    return file_hash(lock) if lock.is_file() else None


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


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
