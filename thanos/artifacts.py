"""Files that are whole or absent: atomic writes, seals, manifests and their verification.

A damaged file must not pass for a result, so everything that is written carries its hash: a JSON
file in its own last key, a folder in its `manifest.json`, any other text in `<file>.sha256` beside
it, in the form that `sha256sum --check` reads. No two jobs write to a file that they share.
"""

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

from .content import file_hash, file_hashes
from .errors import UserError
from .untrusted import inside, parse_json

MANIFEST = "manifest.json"
SEAL = "content_sha256"  # last key of a JSON file: the hash of the rest
CHECKSUM = ".sha256"  # what the name of a text file's checksum ends in


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


def write_checked_text(path: Path, text: str) -> None:
    """Write a text file and its checksum beside it; equal texts may be written at the same time."""
    write_text(path, text)
    write_text(checksum_of(path), f"{file_hash(path)}  {path.name}\n")


def checksum_of(path: Path) -> Path:
    """Where the checksum of a text file lies."""
    return path.with_name(path.name + CHECKSUM)


def verify_text(path: Path, *, required: bool = False, anew: bool = False) -> None:
    """Check a text file against its checksum; one without, made by hand, passes unless `required`.

    `anew` reads it even if it has not been touched since it was hashed.

    Raises:
        UserError: if the file is missing or its content differs.
    """
    checksum = checksum_of(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if not checksum.is_file():
        if required:
            raise UserError(f"{checksum} is missing; delete {path} and run its rule again")
        return
    if checksum.read_bytes() != f"{file_hash(path, anew=anew)}  {path.name}\n".encode():
        raise UserError(
            f"{path} is damaged: its content differs from {checksum.name}; delete both and run "
            f"its rule again, or delete only {checksum.name} if the change was meant"
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON atomically, sealed: its last key is the hash of the rest.

    Raises:
        UserError: if a number is not finite; the message names its key.
    """
    if key := _non_finite_key(values):
        raise UserError(f"{key} is not finite; {path} is not written")
    write_text(path, _sealed(values))


def read_json(path: Path, *, sealed: bool = False) -> dict[str, Any]:
    """Read a JSON object; the seal is checked and taken off.

    Args:
        path: the file.
        sealed: whether a file without a seal, not written by `write_json`, is refused.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = parse_json(text)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except ValueError:
        raise UserError(f"{path} is damaged; delete it and run its rule again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} does not hold a JSON object; delete it and run its rule again")
    if values.pop(SEAL, None) is None:
        if sealed:
            raise UserError(f"{path} has no {SEAL}; delete it and run its rule again")
    elif _non_finite_key(values) or text != _sealed(values):  # nothing sealed is not finite
        raise UserError(
            f"{path} is damaged: its content differs from its {SEAL}; "
            "delete it and run its rule again"
        )
    return values


def write_manifest(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write `manifest.json`, last: size and sha256 of every file, and facts about their making.

    Returns:
        Its content.
    """
    found = [file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST]
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": digest}
        for file, digest in file_hashes(sorted(found)).items()
    }
    manifest = {"files": files, **facts}
    write_json(folder / MANIFEST, manifest)
    return manifest


def verify_manifest(folder: Path, maker: str, *, anew: bool = False) -> dict[str, Any]:
    """Check every file of a folder against its manifest, which is returned.

    Args:
        folder: what to verify.
        maker: the rule or command that makes it, for the message.
        anew: read every file, also those that have not been touched since they were hashed.

    Raises:
        UserError: if a file is missing or its content differs.
    """
    remedy = f"delete {folder} and run {maker} again"
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}: it is not complete; {remedy}")
    manifest = read_json(folder / MANIFEST, sealed=True)
    damage = "is damaged: its content differs from the manifest"
    listed = _listed(folder, manifest, remedy)
    for file, size, _ in listed:
        if not file.is_file():
            raise UserError(f"{file} is missing; {remedy}")
        if file.stat().st_size != size:
            raise UserError(f"{file} {damage}; {remedy}")
    found = file_hashes((file for file, *_ in listed), anew=anew)
    for file, _, digest in listed:
        if found[file] != digest:
            raise UserError(f"{file} {damage}; {remedy}")
    return manifest


def _listed(folder: Path, manifest: dict[str, Any], remedy: str) -> list[tuple[Path, int, str]]:
    """Path, size and hash of every file that a manifest lists."""
    try:
        return [
            (inside(folder, name), facts["bytes"], facts["sha256"])
            for name, facts in manifest["files"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder / MANIFEST} lists no files ({reason:.200}); {remedy}") from error


def _sealed(values: dict[str, Any]) -> str:
    """JSON text of values, byte for byte a function of them, with the hash of the rest as seal."""
    digest = hashlib.sha256(json.dumps(values, indent=2, allow_nan=False).encode()).hexdigest()
    return json.dumps({**values, SEAL: digest}, indent=2, allow_nan=False) + "\n"


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
