"""One job per GPU: on a machine with several, each job of a workflow takes one for itself.

Snakemake counts resources but pins nothing. A job therefore locks a file per GPU, and the system
takes the lock back however the job ends. Slurm assigns GPUs itself, and a run by hand takes what
`device` says.
"""

import fcntl
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

LOCKS_VARIABLE = "THANOS_GPU_LOCKS"  # a folder; the workflow names it
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS = 0.5  # between two looks at GPUs that are all taken
_held: list[IO[str]] = []


def name_locks() -> None:
    """Let the jobs that this process starts claim GPUs; each user has locks of their own."""
    default = f"{tempfile.gettempdir()}/thanos-gpus-{os.getuid()}"
    os.environ.setdefault(LOCKS_VARIABLE, default)


def claim_gpu() -> str | None:
    """Take a GPU that no other job has, until this process ends; wait where all are taken.

    CUDA must not be in use yet: from here on the process sees this GPU alone.

    Returns:
        The GPU's index or id; None where there is none or this is no job of a local workflow.
    """
    folder, gpus = os.environ.get(LOCKS_VARIABLE), visible_gpus()
    if not folder or not gpus or _held or "SLURM_JOB_ID" in os.environ:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        for gpu in gpus:
            lock = (Path(folder) / f"{gpu.replace('/', '-')}.lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _held.append(lock)
            os.environ[_VISIBLE] = gpu
            return gpu
        if not waiting:
            logger.info("waiting for one of the GPUs %s", ", ".join(gpus))
            waiting = True
        time.sleep(_SECONDS)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, without asking CUDA."""
    visible = os.environ.get(_VISIBLE)
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    driver = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(driver.iterdir())] if driver.is_dir() else []
