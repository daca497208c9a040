"""Pack a checkpoint folder and restore it: identical files, checked by their hashes."""

import shutil
from pathlib import Path
from typing import Any

from thanos.artifacts import MANIFEST, atomic_folder, read_json, verify_manifest, write_manifest
from thanos.content import file_hash
from thanos.errors import UserError
from thanos.untrusted import inside

from .packing import FORMAT, VERSION, Sizes, pack_file, unpack_file

# The packed folder has a manifest of its own, so the checkpoint's waits under another name.
_SOURCE_MANIFEST = "checkpoint-manifest.json"
_SUFFIX = ".safetensors"


def pack_folder(source: Path, target: Path) -> Sizes:
    """Write the packed form of a checkpoint folder to `target`, which must not exist.

    Raises:
        UserError: no such folder, nothing to pack in it, a damaged file, or a target that exists.
    """
    files = checked_files(source, target)
    if not any(name.endswith(_SUFFIX) for name in files):
        raise UserError(f"{source} holds no {_SUFFIX} file to pack")
    if _SOURCE_MANIFEST in files:
        raise UserError(f"{source} is packed already")
    if MANIFEST in files:
        verify_manifest(source, maker="rule prune")
    sizes = Sizes()
    with atomic_folder(target) as temporary:
        for name, file in files.items():
            packed = temporary / (_SOURCE_MANIFEST if name == MANIFEST else name)
            packed.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(_SUFFIX):
                sizes += pack_file(file, packed)
            else:
                shutil.copyfile(file, packed)
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "checkpoint": {name: file_hash(file) for name, file in files.items()},
        }
        write_manifest(temporary, facts)
    return sizes


def unpack_folder(source: Path, target: Path) -> None:
    """Restore the folder that `pack_folder` was given at `target`, which must not exist.

    All that is read has the hash that the manifest names before anything is written, and what is
    restored has the hash of what was packed before it is moved to where it is wanted.

    Raises:
        UserError: not a packed folder, a damaged file, or a target that exists.
    """
    checked_files(source, target)
    manifest = verified_packed(source)
    with atomic_folder(target) as temporary:
        for name, packed, expected in _restored(source, manifest):
            file = inside(temporary, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(_SUFFIX):
                unpack_file(packed, file)
            else:
                shutil.copyfile(packed, file)
            if file_hash(file) != expected:
                raise UserError(f"{packed} does not restore {name}: its content differs")


def verified_packed(source: Path) -> dict[str, Any]:
    """The manifest of a packed folder, whose files are what it says.

    Raises:
        UserError: not a packed folder, or a damaged file.
    """
    if not (source / MANIFEST).is_file() or read_json(source / MANIFEST).get("format") != FORMAT:
        raise UserError(f"{source} is not a packed folder; python -m thanos pack writes one")
    return verify_manifest(source, maker="python -m thanos pack")


def _restored(source: Path, manifest: dict[str, Any]) -> list[tuple[str, Path, str]]:
    """Of every file to restore its name, the verified file it is packed in, and its hash."""
    wanted = manifest.get("checkpoint")
    if not isinstance(wanted, dict):
        raise UserError(f"{source / MANIFEST} names no files to restore; pack the checkpoint again")
    found = []
    for name, expected in wanted.items():
        packed = _SOURCE_MANIFEST if name == MANIFEST else name
        if packed not in manifest["files"]:  # so a name that leads out is refused too
            raise UserError(f"{source} lacks {name!r:.80}; pack the checkpoint again")
        found.append((name, source / packed, expected))
    return found


def check_checkpoint(source: Path, target: Path) -> None:
    """Check a model folder, and its manifest if it has one, before it is written anew.

    Raises:
        UserError: no model folder, a damaged file, or a target that exists or lies in it.
    """
    files = checked_files(source, target)
    if "config.json" not in files:
        raise UserError(f"{source} is no model folder: it has no config.json")
    if MANIFEST in files:
        verify_manifest(source, maker="rule prune")


def checked_files(source: Path, target: Path) -> dict[str, Path]:
    """The source's files by their names relative to it.

    Raises:
        UserError: no such folder, or a target that exists or lies in it.
    """
    if not source.is_dir():
        raise UserError(f"folder {source} does not exist")
    if target.exists():
        raise UserError(f"{target} exists already; give another folder or remove it")
    if source.resolve() in target.resolve().parents:
        raise UserError(f"{target} lies inside {source}; give a folder beside it")
    found = {file.relative_to(source).as_posix(): file for file in source.rglob("*")}
    return {name: file for name, file in sorted(found.items()) if file.is_file()}
