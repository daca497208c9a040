"""Files that are whole or absent: atomic writes, manifests and their verification."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError

MANIFEST = "manifest.json"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling that becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder that becomes `path` when the block ends without an error.

    An older folder at `path` is replaced; two writers cannot mix their files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            discarded = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(discarded / path.name)
            temporary.rename(path)
            shutil.rmtree(discarded)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        UserError: if a number is not finite; the message names its key.
    """
    if key := _non_finite_key(values):
        raise UserError(f"{key} is not finite; {path} is not written")
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged; delete it and run its rule again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it and run its rule again")
    return values


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write `manifest.json`, last: size and sha256 of every file, and facts about their making."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"files": files, **facts})


def verify_manifest(folder: Path, maker: str) -> dict[str, Any]:
    """Check every file of a folder against its manifest, which is returned.

    Args:
        folder: what to verify.
        maker: the rule or command that makes it, for the message.

    Raises:
        UserError: if a file is missing or its content differs.
    """
    remedy = f"delete {folder} and run {maker} again"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}: it is not complete; {remedy}")
    manifest = read_json(folder / MANIFEST)
    for name, expected in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing; {remedy}")
        if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
            raise UserError(f"{file} is damaged: its content differs from the manifest; {remedy}")
    return manifest


def sha256(file: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _non_finite_key(values: Any, key: str = "") -> str | None:
    if isinstance(values, float):
        return None if math.isfinite(values) else key
    if isinstance(values, dict):
        items = [(f"{key}.{name}" if key else str(name), value) for name, value in values.items()]
    elif isinstance(values, list):
        items = [(f"{key}[{index}]", value) for index, value in enumerate(values)]
    else:
        return None
    return next((found for name, value in items if (found := _non_finite_key(value, name))), None)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
