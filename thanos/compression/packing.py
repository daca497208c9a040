"""Packed tensors: the non-zero values of a tensor and a bitmask that says where they stand.

Lossless to the bit: only words whose bits are all zero are dropped, so -0.0 and NaN survive. A
tensor that would not become smaller stays as it is. The result is itself a safetensors file:

    <name>           a tensor kept as it is
    <name>:values    its non-zero values, one dimension, same dtype
    <name>:bitmask   one bit per weight, row by row, the first in the highest bit of a byte

The safetensors library writes whole dictionaries of tensors only, and in an order of its own; here
a file can be larger than memory and is restored bit by bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from thanos.errors import UserError
from thanos.models.safetensors_layout import (
    Header,
    StoredTensor,
    damaged,
    header_text,
    parse_header,
    read_header,
)

FORMAT = "thanos-packed"
VERSION = "1"
VALUES, BITMASK = ":values", ":bitmask"  # module names have no colon
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights, and bytes of tensors as they are and packed; headers not counted."""

    dense: int = 0
    packed: int = 0
    sparse_dense: int = 0  # of the tensors that packing makes smaller
    sparse_packed: int = 0
    weights: int = 0
    nonzero: int = 0

    def __add__(self, other: "Sizes") -> "Sizes":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Sizes(*(one + another for one, another in pairs))


def packed_bytes(elements: int, nonzero: int, item_bytes: int) -> int:
    """Bytes of a tensor in the smaller of its two forms.

    Args:
        elements: weights of the tensor.
        nonzero: how many of them are not zero.
        item_bytes: bytes per weight.
    """
    return min(elements * item_bytes, nonzero * item_bytes + _mask_bytes(elements))


def tensor_sizes(elements: int, nonzero: int, item_bytes: int) -> Sizes:
    """The `Sizes` of one tensor."""
    dense, packed = elements * item_bytes, packed_bytes(elements, nonzero, item_bytes)
    sparse = (dense, packed) if packed < dense else (0, 0)
    return Sizes(dense, packed, *sparse, elements, nonzero)


def file_sizes(source: Path) -> Sizes:
    """The sizes that `pack_file` would report, without writing; one tensor is in memory at a time.

    Raises:
        UserError: the file is damaged or packed already.
    """
    return _plan(_unpacked_header(source), source)[1]


def pack_file(source: Path, target: Path) -> Sizes:
    """Write the packed form of a safetensors file; one tensor is in memory at a time.

    Raises:
        UserError: the file is damaged or packed already.
    """
    header = _unpacked_header(source)
    packed, sizes = _plan(header, target)
    with _create(target, packed) as write:
        for name, stored in header.tensors.items():
            if name in packed.tensors:
                write(name, _bytes(stored))
                continue
            words = _words(stored)
            nonzero = words != 0
            write(name + VALUES, words[nonzero])
            write(name + BITMASK, np.packbits(nonzero))
    return sizes


def unpack_file(source: Path, target: Path) -> None:
    """Restore the safetensors file that `pack_file` was given, byte for byte.

    Raises:
        UserError: the file is damaged, not packed, or packed by a newer version.
    """
    with _opened(source) as (header, read), _create(target, header) as write:
        for name in header.tensors:
            write(name, read(name))


def unpacked_tensors(source: Path) -> Iterator[tuple[StoredTensor, np.ndarray]]:
    """Yield what each tensor of a packed file was stored as, and its bytes; one is in memory.

    Raises:
        UserError: as `unpack_file`.
    """
    with _opened(source) as (header, read):
        for name, stored in header.tensors.items():
            yield stored, read(name)


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Header, Callable[[str], np.ndarray]]]:
    """The header of the file that was packed, and what gives the values of a tensor in it."""
    packed = read_header(source)
    if packed.metadata.get("format") != FORMAT:
        raise UserError(f"{source} is not a packed file")
    if packed.metadata.get("version") != VERSION:
        raise UserError(f"{source} is packed by another version; update thanos to unpack it")
    try:
        header = parse_header(source, packed.metadata["header"])

        def read(name: str) -> np.ndarray:
            kept = packed.tensors.get(name)
            return _bytes(kept) if kept else _unpacked(header.tensors[name], packed)

        yield header, read
    except (KeyError, ValueError) as error:
        raise damaged(source, f"what it restores is not in it: {error}") from error


def _unpacked_header(source: Path) -> Header:
    header = read_header(source)
    if header.metadata.get("format") == FORMAT:
        raise UserError(f"{source} is packed already")
    return header


def _unpacked(tensor: StoredTensor, packed: Header) -> np.ndarray:
    mask, values = packed.tensors[tensor.name + BITMASK], packed.tensors[tensor.name + VALUES]
    if mask.bytes != _mask_bytes(tensor.elements):  # before memory is taken for so many
        raise ValueError(f"mask of {mask.bytes} bytes for {tensor.elements} weights")
    words = np.zeros(tensor.elements, _WORDS[_item_bytes(tensor)])
    nonzero = np.unpackbits(_bytes(mask), count=len(words)).view(bool)
    words[nonzero] = _bytes(values).view(words.dtype)
    return words


@dataclass(frozen=True)
class _Piece:
    """A tensor to be written, whose place in the file is not known yet."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    item_bytes: int


def _plan(header: Header, target: Path) -> tuple[Header, Sizes]:
    """The header of the packed file, and what it saves."""
    pieces: list[_Piece] = []
    sizes = Sizes()
    for name, stored in header.tensors.items():
        if name.endswith((VALUES, BITMASK)):
            raise UserError(f"tensor {name!r} cannot be packed: the name is taken by the format")
        elements, item = stored.elements, _item_bytes(stored)
        one, count = Sizes(stored.bytes, stored.bytes), 0
        if item in _WORDS:
            count = int(np.count_nonzero(_words(stored)))
            one = tensor_sizes(elements, count, item)
        sizes += one
        if one.packed == one.dense:
            pieces.append(_Piece(name, stored.dtype, stored.shape, stored.bytes, item))
            continue
        mask = _mask_bytes(elements)
        pieces.append(_Piece(name + VALUES, stored.dtype, (count,), count * item, item))
        pieces.append(_Piece(name + BITMASK, "U8", (mask,), mask, 1))
    metadata = {"format": FORMAT, "version": VERSION, "header": header.text}
    wide_first = sorted(pieces, key=lambda piece: -piece.item_bytes)  # so that words are aligned
    lines = [(piece.name, piece.dtype, piece.shape, piece.size) for piece in wide_first]
    return parse_header(target, header_text(lines, metadata)), sizes


@contextmanager
def _create(file: Path, header: Header) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Create a file with this header; yield `write(name, values)`, to be called in any order."""
    with file.open("wb") as stream:
        stream.write(header.head)

        def write(name: str, values: np.ndarray) -> None:
            place = header.tensors[name]
            if values.nbytes != place.bytes:
                raise ValueError(f"{name!r:.80}: {values.nbytes} bytes in place of {place.bytes}")
            stream.seek(place.start)
            stream.write(np.ascontiguousarray(values).view(np.uint8).data)

        yield write


def _bytes(stored: StoredTensor) -> np.ndarray:
    return np.fromfile(stored.file, np.uint8, stored.bytes, offset=stored.start)


def _words(stored: StoredTensor) -> np.ndarray:
    """A tensor as one unsigned integer per weight; its weights are whole words."""
    return _bytes(stored).view(_WORDS[_item_bytes(stored)])


def _item_bytes(stored: StoredTensor) -> int:
    """Bytes per weight; 0 for an empty tensor and for weights that share bytes."""
    elements = stored.elements
    return stored.bytes // elements if elements and stored.bytes % elements == 0 else 0


def _mask_bytes(elements: int) -> int:
    return -(-elements // 8)
