"""Packed tensors: the non-zero values of a tensor and a bitmask that says where they stand.

Lossless to the bit: only words whose bits are all zero are dropped, so -0.0 and NaN survive. A
tensor that would not become smaller stays as it is. The result is itself a safetensors file:

    <name>           a tensor kept as it is
    <name>:values    its non-zero values, one dimension, same dtype
    <name>:bitmask   one bit per weight, row by row, the first in the highest bit of a byte
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from thanos.errors import UserError

from .container import Entry, Header, create_file, format_header, open_tensors, parse_header
from .container import read_header as read_container

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
    header = _unpacked_header(source)
    with open_tensors(source, header) as tensors:
        return _plan(header, _nonzero_counts(header, tensors))[1]


def pack_file(source: Path, target: Path) -> Sizes:
    """Write the packed form of a safetensors file; one tensor is in memory at a time.

    Raises:
        UserError: the file is damaged or packed already.
    """
    header = _unpacked_header(source)
    with open_tensors(source, header) as tensors:
        packed, sizes = _plan(header, _nonzero_counts(header, tensors))
        with create_file(target, packed) as writer:
            for name, entry in header.entries.items():
                if name in packed.entries:
                    writer.write(name, tensors[name])
                    continue
                words = _words(tensors[name], entry)
                assert words is not None
                nonzero = words != 0
                writer.write(name + VALUES, words[nonzero])
                writer.write(name + BITMASK, np.packbits(nonzero))
    return sizes


def unpack_file(source: Path, target: Path) -> None:
    """Restore the safetensors file that `pack_file` was given, byte for byte.

    Raises:
        UserError: the file is damaged, not packed, or packed by a newer version.
    """
    packed = read_container(source)
    if packed.metadata.get("format") != FORMAT:
        raise UserError(f"{source} is not a packed file")
    if packed.metadata.get("version") != VERSION:
        raise UserError(f"{source} is packed by another version; update thanos to unpack it")
    try:
        header = parse_header(packed.metadata["header"])
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} is damaged: it lacks the header to restore") from error
    with open_tensors(source, packed) as tensors, create_file(target, header) as writer:
        for name, entry in header.entries.items():
            if name in packed.entries:
                writer.write(name, tensors[name])
                continue
            words = np.zeros(math.prod(entry.shape), _WORDS[_item_bytes(entry)])
            mask = np.unpackbits(tensors[name + BITMASK], count=len(words)).view(bool)
            words[mask] = tensors[name + VALUES].view(words.dtype)
            writer.write(name, words)


def _unpacked_header(source: Path) -> Header:
    header = read_container(source)
    if header.metadata.get("format") == FORMAT:
        raise UserError(f"{source} is packed already")
    return header


def _nonzero_counts(header: Header, tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Non-zero weights of each tensor whose weights are whole words."""
    return {
        name: int(np.count_nonzero(words))
        for name, entry in header.entries.items()
        if (words := _words(tensors[name], entry)) is not None
    }


@dataclass(frozen=True)
class _Piece:
    """A tensor to be written, whose place in the file is not known yet."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    item_bytes: int


def _plan(header: Header, counts: dict[str, int]) -> tuple[Header, Sizes]:
    """The header of the packed file, and what it saves."""
    pieces: list[_Piece] = []
    sizes = Sizes()
    for name, entry in header.entries.items():
        if name.endswith((VALUES, BITMASK)):
            raise UserError(f"tensor {name!r} cannot be packed: the name is taken by the format")
        elements, item = math.prod(entry.shape), _item_bytes(entry)
        one = Sizes(entry.size, entry.size)
        if name in counts:
            one = tensor_sizes(elements, counts[name], item)
        sizes += one
        if one.packed == one.dense:
            pieces.append(_Piece(name, entry.dtype, entry.shape, entry.size, item))
            continue
        count, mask = counts[name], _mask_bytes(elements)
        pieces.append(_Piece(name + VALUES, entry.dtype, (count,), count * item, item))
        pieces.append(_Piece(name + BITMASK, "U8", (mask,), mask, 1))
    metadata = {"format": FORMAT, "version": VERSION, "header": header.text}
    return parse_header(format_header(_placed(pieces), metadata)), sizes


def _placed(pieces: list[_Piece]) -> dict[str, Entry]:
    """One piece after the other; wide words first, so that each tensor is aligned."""
    entries, begin = {}, 0
    for piece in sorted(pieces, key=lambda piece: -piece.item_bytes):
        end = begin + piece.size
        entries[piece.name] = Entry(piece.dtype, piece.shape, begin, end)
        begin = end
    return entries


def _words(values: np.ndarray, entry: Entry) -> np.ndarray | None:
    """A tensor's bytes as one unsigned integer per weight; None if weights are no whole words."""
    item = _item_bytes(entry)
    return values.view(_WORDS[item]) if item in _WORDS else None


def _item_bytes(entry: Entry) -> int:
    """Bytes per weight; 0 for an empty tensor and for weights that share bytes."""
    elements = math.prod(entry.shape)
    return entry.size // elements if elements and entry.size % elements == 0 else 0


def _mask_bytes(elements: int) -> int:
    return -(-elements // 8)
