"""Where each tensor of a safetensors file lies, and a copy of the file with some of them replaced.

Nothing here imports torch: the memory plan reads shapes before anything heavy is loaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from thanos.errors import UserError

_LENGTH_BYTES = 8  # the header's own length, little endian, comes first
_CHUNK = 16 * 2**20

# Bytes per element of the formats that weights are kept in.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file."""

    file: Path
    name: str  # in the file
    dtype: str  # as the format spells it, such as BF16
    shape: tuple[int, ...]
    start: int  # first byte in the file
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_layout(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, in the order of their bytes.

    Raises:
        UserError: the file is damaged or shorter than its header says.
    """
    try:
        data, header = _read_header(file)
        tensors = [_stored(file, data, *item) for item in header.items() if item[0][:2] != "__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, str(error) or type(error).__name__) from error
    tensors.sort(key=lambda tensor: tensor.start)
    end = tensors[-1].start + tensors[-1].bytes if tensors else data
    if end != file.stat().st_size:
        raise _damaged(file, f"{file.stat().st_size} bytes where its header asks for {end}")
    return {tensor.name: tensor for tensor in tensors}


def copy_with(file: Path, replaced: Mapping[str, StoredTensor], target: Path) -> None:
    """Copy a safetensors file byte by byte, but the contents of some tensors from elsewhere.

    Names, order, formats and metadata stay those of `file`; no more than a few MiB are in memory.

    Args:
        file: the file to copy.
        replaced: by name in `file`, tensors of the same shape and dtype.
        target: the file to write.
    """
    layout = read_layout(file)
    with file.open("rb") as source, target.open("wb") as sink:
        _copy_bytes(source, sink, 0, min((t.start for t in layout.values()), default=0))
        for name, tensor in layout.items():
            new = replaced.get(name, tensor)
            if (new.dtype, new.shape) != (tensor.dtype, tensor.shape):
                raise ValueError(f"{name}: {new.dtype} {new.shape} cannot replace {tensor}")
            with new.file.open("rb") as origin:
                _copy_bytes(origin, sink, new.start, new.bytes)


def _read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """First byte of the data, and the header as it is written."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if not 2 <= length <= size - _LENGTH_BYTES:
            raise ValueError(f"header of {length} bytes in a file of {size}")
        return _LENGTH_BYTES + length, json.loads(stream.read(length))


def _stored(file: Path, data: int, name: str, entry: dict[str, Any]) -> StoredTensor:
    first, last = entry["data_offsets"]
    shape = tuple(entry["shape"])
    return StoredTensor(file, name, entry["dtype"], shape, data + first, last - first)


def _copy_bytes(source: BinaryIO, sink: BinaryIO, start: int, count: int) -> None:
    source.seek(start)
    while count > 0:
        chunk = source.read(min(count, _CHUNK))
        if not chunk:
            raise ValueError(f"{source.name} ends too early")
        sink.write(chunk)
        count -= len(chunk)


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(
        f"weight file {file} is damaged or incomplete ({reason}); copy or download the model again"
    )
