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
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from .threads import side_by_side

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
    path, status = str(file.resolve()), file.stat()
    if remembered := _recall(path, _stamp(status), status.st_size):
        return remembered
    settled = _is_settled(status)
    found = _hash(file)
    if settled and _stamp(file.stat()) == _stamp(status):
        _remember(path, _stamp(status), found, status.st_size)
    return found


def file_hashes(files: Iterable[Path], *, anew: bool = False) -> dict[Path, str]:
    """The `file_hash` of each of some files, several at a time."""
    files = list(files)
    return dict(zip(files, side_by_side(partial(file_hash, anew=anew), files), strict=True))


def known_hash(file: Path) -> str | None:
    """The hash of a file if it is remembered, or soon computed; a large one is not read."""
    status = file.stat()
    known = _recall(str(file.resolve()), _stamp(status), status.st_size)
    return known or (file_hash(file) if status.st_size < _SMALL else None)


def remember_moved(file: Path, found: str) -> None:
    """Remember the hash of a file that was hashed before it was moved to where it is."""
    status = file.stat()
    if _is_settled(status):
        _remember(str(file.resolve()), _stamp(status), found, status.st_size)


def folder_hash(folder: Path, files: Iterable[Path]) -> str:
    """The sha256 over the names, relative to `folder`, and contents of some of its files."""
    hashes = file_hashes(files).items()
    return hash_of_hashes({file.relative_to(folder).as_posix(): found for file, found in hashes})


def hash_of_hashes(hashes: Mapping[str, str]) -> str:
    """The sha256 over names and the hashes of what they name."""
    lines = sorted(f"{name} {found}" for name, found in hashes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cache_folder() -> Path:
    """Where things are kept that can be had again: `THANOS_CACHE`, or the user's cache folder."""
    if root := os.environ.get(CACHE_VARIABLE):
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thanos"


def _stamp(status: os.stat_result) -> str:
    """What changes whenever the content does."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _is_settled(status: os.stat_result) -> bool:
    return time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS


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
    return cache_folder() / "content" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
