"""A folder that one process at a time works in."""

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from thanos.errors import UserError, has_no_locks

logger = logging.getLogger(__name__)

_LOCK = "lock"


def locked(path: Path, wait: bool) -> IO[str]:
    """The lock of a folder, made if it is not there, held until it is closed.

    The system closes it however a process ends.

    Args:
        path: the folder.
        wait: for another process that holds it.

    Raises:
        UserError: another process holds it, and `wait` is false.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = (path / _LOCK).open("w")
        except FileNotFoundError:  # its last holder has just removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                lock.close()
                raise UserError(
                    f"another process is working in {path}; wait for it or give another output"
                ) from None
            logger.warning("another process is working in %s; waiting for it", path)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if not has_no_locks(error):
                lock.close()
                raise
            logger.warning(
                "the file system of %s has no locks: nothing keeps a second process out of it", path
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), (path / _LOCK).stat()):
                return lock
        lock.close()  # of a folder that is gone
