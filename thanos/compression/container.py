"""The safetensors container at the level of bytes: one tensor in memory at a time, any dtype.

A file is the length of its header (8 bytes, little endian), the header (JSON: dtype, shape and
offsets of each tensor) and the tensors' bytes. The library writes whole dictionaries of tensors
only and reorders what it writes; here a file can be larger than memory and is restored bit by bit.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from thanos.errors import UserError

METADATA = "__metadata__"
_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # bytes; the library refuses longer ones


@dataclass(frozen=True)
class Entry:
    """One tensor's line in the header."""

    dtype: str  # as safetensors spells it: F16, BF16, U8, ...
    shape: tuple[int, ...]
    begin: int  # bytes, counted from the end of the header
    end: int

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return self.end - self.begin


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about its tensors, and the exact text that says it."""

    text: str
    entries: dict[str, Entry]
    metadata: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of the tensors together."""
        return max((entry.end for entry in self.entries.values()), default=0)


def parse_header(text: str) -> Header:
    """Parse a header's text.

    Raises:
        ValueError: it is no header of a safetensors file.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        metadata = values.pop(METADATA, None) or {}
        entries = {name: _entry(line) for name, line in values.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a safetensors header: {error}") from error
    return Header(text, entries, metadata)


def format_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> str:
    """The text of a header, padded so that the tensors start at a multiple of eight bytes."""
    lines: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, entry in entries.items():
        offsets = [entry.begin, entry.end]
        lines[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
    text = json.dumps(lines, separators=(",", ":"))  # ASCII only: characters are bytes
    return text + " " * (-len(text) % 8)


def read_header(file: Path) -> Header:
    """Read a file's header and check that the file is as long as it says.

    Raises:
        UserError: the file is damaged or no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size, _LONGEST_HEADER):
            raise UserError(f"{file} is damaged, or is no safetensors file")
        try:
            header = parse_header(stream.read(length).decode())
        except ValueError as error:
            raise UserError(f"{file} is damaged: its header cannot be read ({error})") from error
    if size != _LENGTH_BYTES + length + header.size:
        raise UserError(f"{file} is damaged: its length is not what its header says")
    return header


@contextmanager
def open_tensors(file: Path, header: Header) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield the file's tensors by name, as flat arrays of bytes that are read when asked for."""
    with file.open("rb") as stream:
        yield _Tensors(stream, header)


@contextmanager
def create_file(file: Path, header: Header) -> Iterator["TensorWriter"]:
    """Create a file with this header; its tensors may be written in any order."""
    encoded = header.text.encode()
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(_LENGTH_BYTES, "little"))
        stream.write(encoded)
        start = stream.tell()
        stream.truncate(start + header.size)
        yield TensorWriter(stream, header, start)


class TensorWriter:
    """Writes tensors to the places that the header gives them."""

    def __init__(self, stream: BinaryIO, header: Header, start: int) -> None:
        self._stream = stream
        self._header = header
        self._start = start

    def write(self, name: str, values: np.ndarray) -> None:
        """Write a tensor's bytes; `values` is contiguous and of the size in the header."""
        entry = self._header.entries[name]
        if values.nbytes != entry.size:
            raise ValueError(f"{name}: {values.nbytes} bytes for a place of {entry.size}")
        self._stream.seek(self._start + entry.begin)
        self._stream.write(np.ascontiguousarray(values).view(np.uint8).data)


class _Tensors(Mapping[str, np.ndarray]):
    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self._stream = stream
        self._entries = header.entries
        self._start = _LENGTH_BYTES + len(header.text.encode())

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        self._stream.seek(self._start + entry.begin)
        return np.frombuffer(self._stream.read(entry.size), np.uint8)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _entry(line: dict[str, Any]) -> Entry:
    begin, end = line["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError(f"not a safetensors header: offsets {begin} to {end}")
    return Entry(line["dtype"], tuple(line["shape"]), begin, end)
