"""Weights that are published as pickles: converted to safetensors once, in a process of their own.

Opening a pickle can run code, so that no stage does: `unpickling` takes tensors and nothing else
from it and writes the safetensors, which are all that is read ever after.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thanos.artifacts import MANIFEST, read_json, verify_manifest, write_manifest
from thanos.content import (
    cache_folder,
    file_hash,
    hash_of_hashes,
    known_hash,
    remember_moved,
)
from thanos.errors import UserError, is_full_disk
from thanos.untrusted import inside, parse_json

from .lock import locked
from .shards import CARRIED

logger = logging.getLogger(__name__)

PICKLED = "pytorch_model*.bin"
REFUSED = 3  # status of the process that converts: it has said why in one line
_SINGLE_FILE = "pytorch_model.bin"
_INDEX = "pytorch_model.bin.index.json"
_NOT_COPIED = ("*.index.json", MANIFEST)  # they say where weights lie
_ROOT = Path(__file__).resolve().parents[2]


def pickle_files(folder: Path) -> list[Path]:
    """The pickled weight files of a model folder; none if it holds none under known names.

    Raises:
        UserError: there are several without an index, or the index cannot be read.
    """
    if (folder / _SINGLE_FILE).exists():
        return [folder / _SINGLE_FILE]
    if (folder / _INDEX).exists():
        return indexed_files(folder / _INDEX)
    shards = sorted(folder.glob(PICKLED))
    if len(shards) > 1:
        raise UserError(
            f"{folder} holds {len(shards)} files such as {shards[0].name} but no {_INDEX}, which "
            "tells what belongs together; copy or download the model again"
        )
    return shards


def indexed_files(index: Path) -> list[Path]:
    """The files that an index names, all of them in its folder.

    Raises:
        UserError: the index is damaged, or names others.
    """
    try:
        names = {*parse_json(index.read_bytes(), unique=True)["weight_map"].values()}
        files = sorted(inside(index.parent, name) for name in names)
        if any(file.parent != index.parent for file in files):
            raise ValueError("it names files in other folders")
        return files
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"weight index {index} is damaged ({error!s:.200}); download the model again"
        ) from error


def converted_folder(folder: Path) -> Path | None:
    """Where the safetensors of a folder with pickles are, if they have been made; reads nothing."""
    files = [file for file in _contents(folder) if file.is_file()]
    hashes = {_name(folder, file): known_hash(file) for file in files}
    known = {name: found for name, found in hashes.items() if found}
    place = _place(known)
    return place if len(known) == len(hashes) and (place / MANIFEST).is_file() else None


def safetensors_folder(folder: Path, trust_remote_code: bool) -> Path:
    """A folder of the same model that holds safetensors, made in the cache if it is not there.

    Args:
        folder: a model folder with pickles, which may be read-only.
        trust_remote_code: run the model's own Python files.

    Raises:
        UserError: a pickle is damaged or holds more than tensors; the cache cannot be written.
    """
    for file in pickle_files(folder):
        if not file.is_file():
            raise UserError(f"weight file {file} is missing; copy or download the model again")
    place = _place({_name(folder, file): file_hash(file) for file in _contents(folder)})
    if not (place / MANIFEST).is_file():
        convert(folder, place, trust_remote_code)
    verify_manifest(place, maker="the same command")
    return place


def converted_from(folder: Path) -> dict[str, Any]:
    """What a folder was converted from, as `convert` recorded it; nothing if it was not."""
    file = folder / MANIFEST
    return dict(read_json(file).get("converted_from", {})) if file.is_file() else {}


def convert(folder: Path, place: Path, trust_remote_code: bool, **facts: str) -> None:
    """Write the model in `folder` to `place`, with safetensors in place of its pickles.

    `manifest.json` there holds the hashes of both, and `facts` of the origin. Of several processes
    one does the work; the others wait for it.

    Raises:
        UserError: a pickle is damaged or holds more than tensors; `place` cannot be written.
    """
    work, made = place.with_name(f"{place.name}.partial"), place / MANIFEST
    try:
        with locked(work, wait=True):
            try:
                known = converted_from(place)  # by another process, meanwhile
                if not (made.is_file() and facts.items() <= known.items()):
                    manifest = _make(folder, work / "model", trust_remote_code, facts)
                    shutil.rmtree(place, ignore_errors=True)
                    (work / "model").rename(place)
                    for name, file in manifest["files"].items():
                        remember_moved(place / name, file["sha256"])
            finally:
                shutil.rmtree(work)
    except OSError as error:
        if is_full_disk(error):
            raise
        raise UserError(
            f"the safetensors made of {folder} cannot be written ({error}); "
            "set THANOS_CACHE to a folder with room for them"
        ) from error


def _make(
    folder: Path, made: Path, trust_remote_code: bool, facts: dict[str, str]
) -> dict[str, Any]:
    """Write all of the model to a folder, and return its manifest."""
    sources = pickle_files(folder)
    size = sum(file.stat().st_size for file in sources) / 2**30
    logger.info(
        "%s holds pickled weights (%s, %.1f GiB): converting them to safetensors, once, in %s",
        *(folder, ", ".join(file.name for file in sources), size, made.parent.parent),
    )
    shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    made.mkdir()
    for file in _descriptions(folder):
        target = made / _name(folder, file)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    _write_weights(folder, sources, made, trust_remote_code)
    origin = {"folder": str(folder), "files": {file.name: file_hash(file) for file in sources}}
    return write_manifest(made, {"converted_from": {**origin, **facts}})


def _place(hashes: Mapping[str, str]) -> Path:
    return cache_folder() / "converted" / hash_of_hashes(hashes)[:32]


def _name(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _contents(folder: Path) -> list[Path]:
    return [*pickle_files(folder), *_descriptions(folder)]


def _descriptions(folder: Path) -> list[Path]:
    found = {file for pattern in CARRIED for file in folder.glob(pattern)}
    left_out = {file for pattern in _NOT_COPIED for file in folder.glob(pattern)}
    return sorted(file for file in found - left_out if file.is_file())


def _write_weights(
    folder: Path, sources: list[Path], target: Path, trust_remote_code: bool
) -> None:
    shards = [f"{source.stem.removeprefix('pytorch_')}.safetensors" for source in sources]
    names = shards if len(shards) > 1 else ["model.safetensors"]
    request = {
        "files": {
            str(source): str(target / name) for source, name in zip(sources, names, strict=True)
        },
        **_names_of_model(folder, trust_remote_code),
    }
    written = _in_own_process(request)
    if len(written) > 1:
        index = {
            "metadata": {"total_size": sum(sum(sizes.values()) for sizes in written.values())},
            "weight_map": {name: file for file, sizes in written.items() for name in sizes},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (target / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _names_of_model(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """What the weights of a model are called, and which of them are one."""
    import torch

    from .description import read_config
    from .skeleton import build_skeleton

    model = build_skeleton(read_config(folder, trust_remote_code), torch.float32, trust_remote_code)
    names = list(model.state_dict())
    return {"names": names, "prefix": model.base_model_prefix, "tied": model.all_tied_weights_keys}


def _in_own_process(request: dict[str, Any]) -> dict[str, dict[str, int]]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "thanos.models.unpickling"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode != 0:
        *_, said = done.stderr.splitlines() or [""]
        if done.returncode == REFUSED:
            raise UserError(said)
        raise UserError(
            f"converting {', '.join(request['files'])} failed with status {done.returncode}: {said}"
        )
    written: dict[str, dict[str, int]] = json.loads(done.stdout)
    return written
