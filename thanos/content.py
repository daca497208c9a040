"""The hash of a file's content, computed once for as long as the file stays as it is.

A model of 140 GB is named in every run of a suite and read by many stages. Its files are hashed by
the first that asks; the hash is remembered by path, size, times and inode, in a file of its own
below `THANOS_CACHE` (default: the user's cache folder), so that processes and nodes never wait for
each other.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

CACHE_VARIABLE = "THANOS_CACHE"
# Hashing these takes no longer than looking them up.
_SMALL = 2**20
# A file that was written this recently may be written again without its times telling.
_SETTLED_SECONDS = 2.0

_known: dict[str, tuple[str, str]] = {}  # stamp and hash by path: of this process


def file_hash(file: Path, *, anew: bool = False) -> str:
    """The sha256 of a file's content, in hexadecimal.

    Args:
        file: to be read, unless its hash is remembered.
        anew: read it even then, and remember nothing: a damaged disk changes no time.
    """
    if anew:
        return _hash(file)
    path = str(file.resolve())
    status = os.stat(path)  # noqa: PTH116 (the path is a string already)
    stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    if remembered := _recall(path, stamp, status.st_size):
        return remembered
    settled = time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS
    found = _hash(file)
    if settled and os.stat(path).st_mtime_ns == status.st_mtime_ns:  # noqa: PTH116
        _remember(path, stamp, found, status.st_size)
    return found


def folder_hash(folder: Path, files: Iterable[Path]) -> str:
    """The sha256 over the names, relative to `folder`, and contents of some of its files."""
    lines = sorted(f"{file.relative_to(folder).as_posix()} {file_hash(file)}" for file in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recall(path: str, stamp: str, size: int) -> str | None:
    if path in _known:
        known, found = _known[path]
        if known == stamp:
            return found
    if size >= _SMALL:
        with suppress(OSError, UnicodeDecodeError, ValueError):
            known, found, written_for = _entry(path).read_text(encoding="utf-8").split("\n", 2)
            if (known, written_for) == (stamp, path) and len(found) == 64:
                _known[path] = stamp, found
                return found
    return None


def _remember(path: str, stamp: str, found: str, size: int) -> None:
    _known[path] = stamp, found
    if size < _SMALL:
        return
    with suppress(OSError, UnicodeEncodeError):  # it only saves time
        entry = _entry(path)
        entry.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=entry.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(f"{stamp}\n{found}\n{path}")
        Path(name).replace(entry)


def _entry(path: str) -> Path:
    root = os.environ.get(CACHE_VARIABLE)
    if not root:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        root = f"{root}/thanos"
    return Path(root) / "content" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
