"""A model's blocks read from its safetensors files one at a time, the finished ones kept apart."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import nn
from transformers import PreTrainedModel

from thanos.accelerator import on_host
from thanos.errors import UserError

from .blocks import find_blocks
from .description import read_config
from .experts import parameter_of
from .finished_blocks import FinishedBlocks
from .layer import LayerRecord
from .location import weight_files
from .overlap import Beside
from .safetensors_layout import StoredTensor
from .shards import stored_tensors
from .skeleton import build_skeleton, set_tensor
from .stored_weights import (
    commonest_dtype,
    match_names,
    read_tensor,
    refuse_quantised,
    tied_names,
    torch_dtype,
)

_Tensors = dict[str, torch.Tensor | None]


class StreamedBlocks:
    """A `BlockSource` that holds one block, or else what lies around the blocks, never both.

    Args:
        folder: a model folder with safetensors.
        dtype: what to compute in; by default the one that the weights are stored in.
        device: where the parts around the blocks are put: embeddings, last norm, head.
        trust_remote_code: run the model's own Python files.
        finished: where pruned blocks are kept; those that it holds are handed out pruned. Without
            it blocks are handed out as they are stored, and not kept.
        overlap: read the next block, and write the last one, while one is computed. What is being
            written is certain to be kept when the source, a context manager then, is left.

    Raises:
        UserError: no safetensors; a damaged file; a weight that is missing or of the wrong shape.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        trust_remote_code: bool = False,
        finished: FinishedBlocks | None = None,
        overlap: bool = False,
    ) -> None:
        stored = stored_tensors(weight_files(folder))
        config = read_config(folder, trust_remote_code)
        refuse_quantised(folder, config, stored.values())
        self.folder = folder
        self.storage_dtype = commonest_dtype(stored.values())
        self._dtype = dtype or self.storage_dtype
        self._device = device
        self._finished = finished
        self.config = config
        self._model = build_skeleton(config, self._dtype, trust_remote_code)
        self._stored = match_names(self._model, stored, folder)
        self._empty = self._model.state_dict()  # to put back in the place of weights
        self.blocks = find_blocks(self._model)
        self._around = [name for name in self._empty if not name.startswith(f"{self.blocks.name}.")]
        self._around_loaded = False
        self._reading = Beside[_Tensors](overlap)
        self._read_ahead: tuple[int, torch.device | str] | None = None  # which block, and where to
        self._writing = Beside[None](overlap)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._reading.end()
        self._writing.end()
        if kind is None:
            self._writing.result()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, by the model's names."""
        return {name: tuple(tensor.shape) for name, tensor in self._empty.items()}

    @property
    def model(self) -> PreTrainedModel:
        """The model, able to run up to its first block and from its last one on.

        What stands around the blocks is read when this is asked for and dropped when a block is.
        """
        if not self._around_loaded:
            self._put(self._read_all(self._around, self._device, {}), self._device, {})
            for name, buffer in self._model.named_non_persistent_buffers():
                if not name.startswith(f"{self.blocks.name}."):
                    set_tensor(self._model, name, buffer.to(self._device))
            self._around_loaded = True
        return self._model

    def load_whole(self, device: torch.device | str) -> PreTrainedModel:
        """The model with all its weights read to `device`; blocks are taken from it no more."""
        self._put(self._read_all(self._empty, device, self._pruned), device, self._pruned)
        for name, buffer in self._model.named_non_persistent_buffers():
            set_tensor(self._model, name, buffer.to(device))
        return self._model

    def hidden_bytes(self, tokens: int) -> int:
        """Bytes of the hidden states of that many tokens between two blocks."""
        return (
            tokens
            * self._model.config.get_text_config(decoder=True).hidden_size
            * self._dtype.itemsize
        )

    def take(self, index: int, device: torch.device | str) -> nn.Module:
        """Read block `index` to `device`; pruned if it is among the finished ones."""
        self._make_way()
        tensors = self._reading.result()
        if tensors is None or self._read_ahead != (index, device):
            tensors = self._read_all(self._names_of(index), device, self._pruned)
        block = self._fill(index, device, self._pruned, tensors)
        if self._reading.overlap and index + 1 < len(self.blocks):
            self._read_ahead = (index + 1, device)
            self._reading.start(self._read_all, self._names_of(index + 1), device, self._pruned)
        return block

    def take_dense(self, index: int, device: torch.device | str) -> nn.Module:
        """Read block `index` to `device` as the folder has it."""
        self._make_way()
        tensors = self._read_all(self._names_of(index), device, {})
        return self._fill(index, device, {}, tensors)

    def _make_way(self) -> None:
        if self._around_loaded:
            self._drop(self._around)
            self._around_loaded = False

    def _fill(
        self,
        index: int,
        device: torch.device | str,
        pruned: Mapping[str, StoredTensor],
        tensors: _Tensors,
    ) -> nn.Module:
        self._put(tensors, device, pruned)
        block = self.blocks.modules[index]
        for name, buffer in block.named_buffers():
            set_tensor(block, name, buffer.to(device))
        return block

    def give_back(self, index: int, block: nn.Module, records: Sequence[LayerRecord]) -> None:
        """Keep what was pruned of the block, if it is new, and drop its weights."""
        if self._finished is not None and index >= len(self._finished):
            tensors = self._pruned_tensors(records)
            self._writing.start(self._finished.keep, index, tensors, records)
        self._drop(self._names_of(index))

    @property
    def _pruned(self) -> Mapping[str, StoredTensor]:
        return {} if self._finished is None else self._finished.tensors

    def _names_of(self, index: int) -> list[str]:
        start = f"{self.blocks.name_of(index)}."
        return [name for name in self._empty if name.startswith(start)]

    def _pruned_tensors(self, records: Iterable[LayerRecord]) -> dict[str, torch.Tensor]:
        """What pruning changed, under the source's names and in its formats.

        A bias has changed if the rows of its layer are in another order.
        """
        tensors = {}
        names = dict.fromkeys(self._parameter_of(record.name) for record in records)
        biases = (f"{record.name}.bias" for record in records)
        for name in (*names, *(bias for bias in biases if self._has_changed(bias))):
            for piece in self._stored[name]:
                stored = piece.stored
                weight = self._model.get_parameter(name).detach()[piece.place]
                kept = weight.to(torch_dtype(stored))
                if kept is not weight and not torch.equal(kept.to(weight.dtype), weight):
                    raise UserError(
                        f"weight {name} in {stored.file} is stored as {stored.dtype}, most others "
                        f"in another format; convert {self.folder} to one format"
                    )
                tensors[stored.name] = on_host(kept.contiguous())
        return tensors

    def stored_as(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors of other shapes under the names, and in the formats, that the folder has."""
        found = {}
        for name, tensor in tensors.items():
            (piece,) = self._stored[name]
            found[piece.stored.name] = tensor.to("cpu", torch_dtype(piece.stored))
        return found

    def _has_changed(self, name: str) -> bool:
        """Whether a tensor, if there is one of that name, is not as it is stored."""
        if name not in self._stored:
            return False
        now = self._model.get_parameter(name).detach()
        return not torch.equal(now, self._read(name, {}).to(now.device))

    def _parameter_of(self, layer: str) -> str:
        own = f"{layer}.weight"
        return own if own in self._stored else parameter_of(layer)

    def _read_all(
        self,
        names: Iterable[str],
        device: torch.device | str,
        pruned: Mapping[str, StoredTensor],
    ) -> _Tensors:
        """Tensors of the model by name, on the device; None for one that is stored as another."""
        return {
            name: self._read(name, pruned).to(device) if name in self._stored else None
            for name in names
        }

    def _put(
        self,
        tensors: _Tensors,
        device: torch.device | str,
        pruned: Mapping[str, StoredTensor],
    ) -> None:
        for name, read in tensors.items():
            if read is not None:
                set_tensor(self._model, name, read)
        for name in (name for name, read in tensors.items() if read is None):
            partner = next(n for n in tied_names(self._model, name) if n in self._stored)
            tensor = self._model.get_parameter(partner).detach()
            if tensor.is_meta:  # of a block that is not here
                tensor = self._read(partner, pruned).to(device)
            set_tensor(self._model, name, tensor)

    def _read(self, name: str, pruned: Mapping[str, StoredTensor]) -> torch.Tensor:
        """A tensor of the model, from `pruned` what is there."""
        first, *others = self._stored[name]
        if not others:
            return read_tensor(pruned.get(first.stored.name, first.stored), self._dtype)
        whole = torch.empty(self._empty[name].shape, dtype=self._dtype)
        for piece in (first, *others):
            stored = pruned.get(piece.stored.name, piece.stored)
            whole[piece.place] = read_tensor(stored, self._dtype)
        return whole

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            set_tensor(self._model, name, self._empty[name])
