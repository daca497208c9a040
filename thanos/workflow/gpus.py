"""One job per GPU: where jobs start on one machine, each takes one of its GPUs for itself.

Snakemake counts resources but pins nothing. A job therefore locks a file per GPU, and the system
takes the lock back however the job ends. The same inside a Slurm job, an interactive one say: what
Slurm gave to it is shared out among the jobs that are started there, and nobody else's locks are
looked at. A run by hand takes what `device` says.

Locks lie where nobody else can write, and links are not followed.
"""

import fcntl
import logging
import os
import stat
import time
from pathlib import Path
from typing import IO

from ..errors import UserError, has_no_locks

logger = logging.getLogger(__name__)

LOCKS_VARIABLE = "THANOS_GPU_LOCKS"  # a folder; the workflow names it
# By which the makers' libraries know what a process may use; HIP counts within ROCR's.
_VISIBLE = (
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    "ZE_AFFINITY_MASK",
)
# Of a Slurm job, where its GPUs are in none of these.
_SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_SLURM_JOB = "SLURM_JOB_ID"
_SECONDS = 0.5  # between two looks at GPUs that are all taken
_held: list[IO[str]] = []


def name_locks() -> None:
    """Let the jobs that this process starts claim GPUs; each user has locks of their own."""
    root = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME")
    folder = Path(root) if root else Path.home() / ".cache"
    os.environ.setdefault(LOCKS_VARIABLE, str(folder / "thanos" / "gpus"))


def claim_gpu() -> str | None:
    """Take a GPU that no other job has, until this process ends; wait where all are taken.

    GPUs must not be in use yet: from here on the process sees this GPU alone.

    Returns:
        The GPU's index or id; None where there is none or this is no job of a workflow.

    Raises:
        UserError: locks cannot be kept where others cannot touch them.
    """
    named, gpus = os.environ.get(LOCKS_VARIABLE), visible_gpus()
    if not named or not gpus or _held:
        return None
    folder = _private(Path(named))
    # A home may be shared by machines, and within a job of Slurm's GPUs may be counted from zero.
    where = f"{os.uname().nodename}-{os.environ.get(_SLURM_JOB, 'all')}"
    waiting = False
    while True:
        for gpu in gpus:
            if (lock := _locked(folder / f"{where}-{gpu.replace('/', '-')}.lock")) is not None:
                _held.append(lock)
                os.environ[_variable()] = gpu
                return gpu
        if not waiting:
            logger.info("waiting for one of the GPUs %s", ", ".join(gpus))
            waiting = True
        time.sleep(_SECONDS)


def _private(folder: Path) -> Path:
    """The folder, made if it is not there, which must be this user's alone.

    Raises:
        UserError: it is a link or no folder, or others can write there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or others:
        raise UserError(
            f"{folder}, for the locks of GPUs, is not this user's own folder; set "
            f"{LOCKS_VARIABLE} to one that nobody else can write to"
        )
    return folder


def _locked(file: Path) -> IO[str] | None:
    """The file, locked until it is closed; None if another process holds it.

    Raises:
        UserError: it is a link, or its file system has no locks.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            f"the lock of a GPU, {file}, cannot be opened ({error.strerror})"
        ) from error
    lock = os.fdopen(descriptor, "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    except OSError as error:
        lock.close()
        if not has_no_locks(error):
            raise
        raise UserError(
            f"the file system of {file.parent} has no locks, by which jobs share out the GPUs; set "
            f"{LOCKS_VARIABLE} to a folder of yours on a local disk"
        ) from error
    return lock


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, without asking their libraries.

    Where no variable names them, NVIDIA's alone are found.
    """
    named = (os.environ.get(name) for name in (*_VISIBLE, *_SLURM_GPUS))
    visible = next((value for value in named if value is not None), None)
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    driver = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(driver.iterdir())] if driver.is_dir() else []


def _variable() -> str:
    """The variable that names the visible GPUs."""
    return next((name for name in _VISIBLE if name in os.environ), _VISIBLE[0])
