"""Turn pickled weights into safetensors; run as a process of its own by `pickles`.

    python -m thanos.models.unpickling < <request as JSON>

The request holds `files` (pickle -> file to write, one per shard), `names` (of the model's
tensors), `prefix` (that a name may lack) and `tied` (name -> the one that it is tied to). Standard
output is `{file: {name: bytes}}`. What cannot be converted is one line on standard error, and
status `REFUSED`.

Only torch's own unpickler for weights is used: it builds tensors and plain containers, and stops at
anything else before it runs. Shards are mapped, and a chunk at a time is in memory.
"""

import ctypes
import json
import mmap
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thanos.errors import UserError, is_full_disk

from .dtypes import TORCH_DTYPES
from .pickles import REFUSED
from .safetensors_layout import METADATA

_CHUNK = 16 * 2**20
_ZIP = b"PK\x03\x04"  # what torch.save writes since 1.6; older files cannot be mapped
_PLAIN = (Tensor, torch.nn.Parameter)
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_RANKS = {dtype: rank for rank, dtype in enumerate(_NAMES)}


@dataclass(frozen=True)
class _Stored:
    """A tensor of a shard, in the mapped file or, from an old format, in memory."""

    tensor: Tensor
    mapped: bool

    def chunks(self) -> Iterator[Tensor]:
        """Its bytes in order; pages of the file count as memory only while a chunk is looked at."""
        for chunk in self.tensor.contiguous().reshape(-1).view(torch.uint8).split(_CHUNK):
            yield chunk
            if self.mapped and self.tensor.is_contiguous():
                _let_go(chunk)


def convert(request: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Write every shard of a request; return the size of each tensor in each file.

    Raises:
        UserError: a shard is no table of tensors, asks for something else, or is damaged.
    """
    shards = {Path(source): Path(target) for source, target in request["files"].items()}
    opened = {
        source: {_full(name, request): stored for name, stored in _open(source).items()}
        for source in shards
    }
    everything = {name: stored for table in opened.values() for name, stored in table.items()}
    copies = set(_copies(everything, request["tied"]))
    written: dict[str, dict[str, int]] = {}
    for source, target in shards.items():
        kept = {name: stored for name, stored in opened[source].items() if name not in copies}
        _write(kept, target)
        written[target.name] = {name: stored.tensor.nbytes for name, stored in kept.items()}
    return written


def _open(file: Path) -> dict[str, _Stored]:
    """The tensors of a shard by name."""
    with file.open("rb") as stream:
        mapped = stream.read(len(_ZIP)) == _ZIP
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        what = wanted[1] if wanted else "more than tensors and plain containers"
        raise UserError(
            f"weight file {file} asks for {what} when it is opened; only tensors and plain "
            "containers are taken from pickles and nothing of it was run; give safetensors, or "
            "save it again with save_pretrained where you trust it"
        ) from error
    except Exception as error:  # a damaged archive fails in any part of torch
        raise _unusable(file, str(error) or type(error).__name__) from error
    if not isinstance(content, dict) or not content:
        raise _unusable(file, "it is no table of tensors by name")
    for name, value in content.items():
        named = isinstance(name, str) and name.isprintable() and name != METADATA
        if not named or type(value) not in _PLAIN:
            raise _unusable(file, f"{name!r:.80} is a {type(value).__name__}, not a named tensor")
        if value.layout != torch.strided or value.is_meta or value.dtype not in _NAMES:
            raise _unusable(file, f"{name!r:.80} is a tensor of another kind, {value.dtype}")
        if value.nbytes > value.untyped_storage().nbytes():
            raise _unusable(file, f"{name!r:.80} is larger than what is stored of it")
    if sum(value.nbytes for value in content.values()) > 2 * file.stat().st_size:
        raise _unusable(file, "its tensors are larger than the file")
    return {name: _Stored(value.detach(), mapped) for name, value in content.items()}


def _full(name: str, request: dict[str, Any]) -> str:
    """The name as the model has it, where only the prefix is left out."""
    longer = f"{request['prefix']}.{name}"
    return longer if name not in request["names"] and longer in request["names"] else name


def _copies(stored: dict[str, _Stored], tied: dict[str, str]) -> Iterator[str]:
    """Names of what is stored a second time, though the model has it once."""
    for name, source in tied.items():
        if name in stored and source in stored and _equal(stored[name], stored[source]):
            yield name


def _equal(one: _Stored, other: _Stored) -> bool:
    if (one.tensor.shape, one.tensor.dtype) != (other.tensor.shape, other.tensor.dtype):
        return False
    return all(map(torch.equal, one.chunks(), other.chunks()))


def _write(tensors: dict[str, _Stored], target: Path) -> None:
    """Write a safetensors file, byte for byte as the library does."""
    names = sorted(tensors, key=lambda name: (-_RANKS[tensors[name].tensor.dtype], name))
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name].tensor
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as sink:
        sink.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for chunk in tensors[name].chunks():
                sink.write(chunk.numpy().data)


def _let_go(chunk: Tensor) -> None:
    """Let go of the pages of a mapped file; who looks at them again reads them again."""
    start = chunk.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = chunk.data_ptr() + chunk.nbytes - start
    if hasattr(_LIBC, "madvise"):
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


_LIBC = ctypes.CDLL(None)


def _unusable(file: Path, reason: str) -> UserError:
    return UserError(
        f"weight file {file} cannot be converted to safetensors "
        f"({reason.strip().splitlines()[0]:.200}); copy or download it again"
    )


def main() -> None:
    """Entry point; see the module's docstring."""
    try:
        written = convert(json.load(sys.stdin))
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and not is_full_disk(error):
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(REFUSED)
    json.dump(written, sys.stdout)


if __name__ == "__main__":
    main()
