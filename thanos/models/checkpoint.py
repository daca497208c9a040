"""Write a pruned model as a plain safetensors folder."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from thanos.artifacts import MANIFEST, write_manifest
from thanos.content import remember_moved
from thanos.errors import UserError, is_full_disk
from thanos.threads import side_by_side
from thanos.untrusted import parse_json

from .location import weight_files
from .rotary_words import in_older_words
from .safetensors_layout import StoredTensor, copy_with
from .shards import CARRIED, INDEX, index_of, stored_tensors

_CONFIGURATIONS = ("config.json", "generation_config.json")
_FORMATS = ("sparsity_config", "quantization_config")
_LEFT = (MANIFEST,)


def copy_checkpoint(
    source: Path,
    pruned: Mapping[str, StoredTensor],
    folder: Path,
    configuration: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> None:
    """Write to `folder` the model in `source`, with pruned weights in the place of dense ones.

    Files, shards, names and formats are the source's, so that whatever opens the one opens the
    other; weights go from file to file and are never in memory together. Tokenizer, processor,
    templates, code and licences are carried over byte for byte. What a configuration says of
    sparsity or of a quantisation that is none is left out: serving engines reject it; rotary
    positions are said in the words of older readers as well. The folder is written in place: give a
    temporary one and move it when this returns.

    Args:
        source: a model folder with safetensors.
        pruned: the pruned weights, by their name in the source's files.
        folder: an existing folder.
        configuration: what becomes of the values in config.json, if weights have other shapes.

    Raises:
        UserError: no space left on the device.
    """
    files = weight_files(source)
    with _full_disk_advice(folder):
        stored = stored_tensors(files)

        def copy(file: Path) -> None:
            # Not in a second file that holds a tensor, which nobody reads.
            own = {n: t for n, t in pruned.items() if n not in stored or stored[n].file == file}
            copy_with(file, own, folder / file.name, resized=configuration is not None)

        side_by_side(copy, files)
        if len(files) > 1:
            index = source / INDEX
            if index.is_file() and configuration is None:
                shutil.copyfile(index, folder / INDEX)
            else:
                sizes = {n: replace(t, bytes=pruned.get(n, t).bytes) for n, t in stored.items()}
                _write(folder / INDEX, index_of(sizes))
        copy_description(source, folder, configuration)


def copy_description(
    source: Path,
    folder: Path,
    configuration: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> None:
    """The part of `copy_checkpoint` that concerns all but the weights."""
    for file in _carried(source):
        target = folder / file.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        if file.name not in _CONFIGURATIONS:
            shutil.copyfile(file, target)
            continue
        values = _read(file)
        told = in_older_words({key: value for key, value in values.items() if key not in _FORMATS})
        if file.name == "config.json" and configuration is not None:
            told = configuration(told)
        if told == values:
            shutil.copyfile(file, target)
        else:
            _write(target, told)


def copied(source: Path, tensors: Mapping[str, StoredTensor], work: Path) -> Path:
    """A copy of the model in `source` with other tensors, in a folder below `work`."""
    temporary = work / "checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    copy_checkpoint(source, tensors, temporary)
    return temporary


def publish(temporary: Path, facts: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """Put a folder, whole, in the place of an older one, and return its manifest."""
    manifest = write_manifest(temporary, facts)
    shutil.rmtree(checkpoint, ignore_errors=True)
    temporary.rename(checkpoint)
    for name, file in manifest["files"].items():
        remember_moved(checkpoint / name, file["sha256"])
    return manifest


def weights_of(manifest: dict[str, Any]) -> dict[str, str]:
    """The hashes of the weights in a checkpoint, by the names of their files."""
    files = manifest["files"].items()
    return {name: file["sha256"] for name, file in files if name.endswith(".safetensors")}


def check_copied(source: Path) -> None:
    """Read what `copy_checkpoint` will read, before there is anything to write.

    Raises:
        UserError: a JSON file is unusable.
    """
    for file in _carried(source):
        if file.suffix == ".json":
            values = _read(file)
            if file.name in _CONFIGURATIONS and not isinstance(values, dict):
                raise UserError(f"{file} holds no JSON object; copy or download it again")


def _carried(source: Path) -> list[Path]:
    """All that stands beside the weights and belongs to the model."""
    found = {file for pattern in CARRIED for file in source.glob(pattern) if file.is_file()}
    left = {file for file in found if file.name in _LEFT or file.name.endswith(".index.json")}
    return sorted(found - left)


def _write(file: Path, values: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _read(file: Path) -> Any:
    try:
        return parse_json(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); copy or download it again") from error


@contextmanager
def _full_disk_advice(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors have no OSError, only its text
        if is_full_disk(error):
            raise UserError(f"no space left on device while writing {folder}") from error
        raise
