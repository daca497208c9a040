"""Where each tensor of a safetensors file lies, and a copy of the file with some of them replaced.

A file is the length of its header (8 bytes, little endian), the header (JSON: dtype, shape and
offsets of each tensor) and the tensors' bytes. Nothing that a header says is believed unchecked.
Nothing here imports torch: the memory plan reads shapes before anything heavy is loaded.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from thanos.errors import UserError
from thanos.untrusted import parse_json

METADATA = "__metadata__"
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # bytes; the library refuses longer ones
_MOST_DIMENSIONS = 64  # as many as torch allows
_CHUNK = 16 * 2**20

# Bytes per element of the formats that weights are kept in.
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Of the others that fill whole bytes; what is not listed may have any size.
_INTEGER_BYTES = {f"{kind}{8 * size}": size for kind in "IU" for size in (1, 2, 4, 8)}
_EIGHT_BITS = ("BOOL", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_BYTES = FLOAT_BYTES | _INTEGER_BYTES | dict.fromkeys(_EIGHT_BITS, 1) | {"C64": 8}


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


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about its tensors."""

    head: bytes  # everything before the first tensor
    tensors: dict[str, StoredTensor]  # in the order of their bytes, which leave no gap
    metadata: dict[str, str]

    @property
    def text(self) -> str:
        """The JSON text, exactly as it is written."""
        return self.head[_LENGTH_BYTES:].decode()


def read_layout(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, in the order of their bytes.

    Raises:
        UserError: the file is damaged or shorter than its header says.
    """
    return read_header(file).tensors


def read_header(file: Path) -> Header:
    """Read what a file says about its tensors, and check it.

    Raises:
        UserError: the file is damaged, shorter than its header says, or no safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if not 2 <= length <= min(size - _LENGTH_BYTES, _LONGEST_HEADER):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = parse_header(file, stream.read(length).decode())
        end = len(header.head) + sum(tensor.bytes for tensor in header.tensors.values())
        if size != end:
            raise ValueError(f"{size} bytes where its header asks for {end}")
    except (OSError, ValueError) as error:
        raise damaged(file, str(error)) from error
    return header


def parse_header(file: Path, text: str) -> Header:
    """What the JSON text of a header says about a file, which need not exist yet.

    Raises:
        ValueError: it is not what the format asks for.
    """
    encoded = text.encode()
    head = len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded
    values = parse_json(text, unique=True)
    json.dumps(values, ensure_ascii=False).encode()  # half a character, which is no UTF-8
    if not isinstance(values, dict):
        raise ValueError("header is no JSON object")
    metadata = values.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata is no table of strings")
    place = len(head)
    stored = (_stored(file, place, name, entry) for name, entry in values.items())
    tensors = {t.name: t for t in sorted(stored, key=lambda t: (t.start, t.bytes))}
    for tensor in tensors.values():
        if tensor.start != place:
            raise ValueError(f"tensor {tensor.name!r:.80} does not follow the one before it")
        place += tensor.bytes
    return Header(head, tensors, metadata)


def copy_with(
    file: Path, replaced: Mapping[str, StoredTensor], target: Path, *, resized: bool = False
) -> None:
    """Copy a safetensors file byte by byte, but the contents of some tensors from elsewhere.

    Names, order, formats and metadata stay those of `file`; no more than a few MiB are in memory.

    Args:
        file: the file to copy.
        replaced: by name in `file`, tensors of the same dtype and, unless `resized`, shape.
        target: the file to write.
        resized: whether shapes may be others.
    """
    header = read_header(file)
    content = {name: replaced.get(name, tensor) for name, tensor in header.tensors.items()}
    for name, tensor in header.tensors.items():
        new = content[name]
        if new.dtype != tensor.dtype or (new.shape != tensor.shape and not resized):
            raise ValueError(f"{name}: {new.dtype} {new.shape} cannot replace {tensor}")
    if resized:
        lines = [(name, new.dtype, new.shape, new.bytes) for name, new in content.items()]
        header = parse_header(target, header_text(lines, header.metadata))
    with target.open("wb") as sink:
        sink.write(header.head)
        for new in content.values():
            with new.file.open("rb") as origin:
                _copy_bytes(origin, sink, new.start, new.bytes)


def header_text(
    tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]
) -> str:
    """The JSON text of a header, of tensors (name, dtype, shape, bytes) in the order of bytes."""
    lines: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    begin = 0
    for name, dtype, shape, size in tensors:
        lines[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(lines, separators=(",", ":"))  # ASCII only: characters are bytes
    return text + " " * (-len(text) % 8)


def damaged(file: Path, reason: str) -> UserError:
    """The error for a weight file, packed or not, whose content cannot be right."""
    return UserError(
        f"weight file {file} is damaged or incomplete ({reason}); copy or download it again"
    )


def _stored(file: Path, data: int, name: str, entry: Any) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if (
            len(shape) <= _MOST_DIMENSIONS
            and all(type(number) is int and 0 <= number < 2**63 for number in (*shape, begin, end))
            and begin <= end
            and _fits(dtype, prod(shape), end - begin)
        ):
            return StoredTensor(file, name, dtype, tuple(shape), data + begin, end - begin)
    raise ValueError(f"tensor {name!r:.80} has no sound dtype, shape and offsets")


def _fits(dtype: str, elements: int, size: int) -> bool:
    """Whether so many elements take `size` bytes; of a format not listed, a bit each at least."""
    return elements * _BYTES[dtype] == size if dtype in _BYTES else elements <= 8 * size


def _copy_bytes(source: BinaryIO, sink: BinaryIO, start: int, count: int) -> None:
    source.seek(start)
    while count > 0:
        chunk = source.read(min(count, _CHUNK))
        if not chunk:
            raise ValueError(f"{source.name} ends too early")
        sink.write(chunk)
        count -= len(chunk)
