"""A model's blocks read from its safetensors files one at a time, the finished ones kept apart."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from thanos.errors import UserError

from .blocks import find_blocks
from .description import read_config
from .experts import parameter_of
from .finished_blocks import FinishedBlocks
from .layer import LayerRecord
from .location import weight_files
from .safetensors_layout import FLOAT_BYTES, StoredTensor
from .shards import stored_tensors
from .skeleton import build_skeleton, set_tensor
from .stored_weights import match_names, read_tensor, tied_names, torch_dtype


class StreamedBlocks:
    """A `BlockSource` that holds one block, or else what lies around the blocks, never both.

    Args:
        folder: a model folder with safetensors.
        dtype: what to compute in; by default the one that the weights are stored in.
        device: where the parts around the blocks are put: embeddings, last norm, head.
        trust_remote_code: run the model's own Python files.
        finished: where pruned blocks are kept; those that it holds are handed out pruned. Without
            it blocks are handed out as they are stored, and not kept.

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
    ) -> None:
        stored = stored_tensors(weight_files(folder))
        config = read_config(folder, trust_remote_code)
        _refuse_quantised(folder, config, stored.values())
        self.folder = folder
        self.storage_dtype = _commonest_dtype(stored.values())
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
            self._load(self._around, self._device, {})
            for name, buffer in self._model.named_non_persistent_buffers():
                if not name.startswith(f"{self.blocks.name}."):
                    set_tensor(self._model, name, buffer.to(self._device))
            self._around_loaded = True
        return self._model

    def load_whole(self, device: torch.device | str) -> PreTrainedModel:
        """The model with all its weights read to `device`; blocks are taken from it no more."""
        self._load(self._empty, device, self._pruned)
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
        return self._take(index, device, self._pruned)

    def take_dense(self, index: int, device: torch.device | str) -> nn.Module:
        """Read block `index` to `device` as the folder has it."""
        return self._take(index, device, {})

    def _take(
        self, index: int, device: torch.device | str, pruned: Mapping[str, StoredTensor]
    ) -> nn.Module:
        if self._around_loaded:
            self._drop(self._around)
            self._around_loaded = False
        self._load(self._names_of(index), device, pruned)
        block = self.blocks.modules[index]
        for name, buffer in block.named_buffers():
            set_tensor(block, name, buffer.to(device))
        return block

    def give_back(self, index: int, block: nn.Module, records: Sequence[LayerRecord]) -> None:
        """Keep what was pruned of the block, if it is new, and drop its weights."""
        if self._finished is not None and index >= len(self._finished):
            self._finished.keep(index, self._pruned_tensors(records), records)
        self._drop(self._names_of(index))

    @property
    def _pruned(self) -> Mapping[str, StoredTensor]:
        return {} if self._finished is None else self._finished.tensors

    def _names_of(self, index: int) -> list[str]:
        start = f"{self.blocks.name_of(index)}."
        return [name for name in self._empty if name.startswith(start)]

    def _pruned_tensors(self, records: Iterable[LayerRecord]) -> dict[str, torch.Tensor]:
        """The pruned weights as the source stores them: its names, its formats."""
        tensors = {}
        for name in dict.fromkeys(self._parameter_of(record.name) for record in records):
            for piece in self._stored[name]:
                stored = piece.stored
                weight = self._model.get_parameter(name).detach()[piece.place].cpu()
                kept = weight.to(torch_dtype(stored)).contiguous()
                if not torch.equal(kept.to(weight.dtype), weight):
                    raise UserError(
                        f"weight {name} in {stored.file} is stored as {stored.dtype}, most others "
                        f"in another format; convert {self.folder} to one format"
                    )
                tensors[stored.name] = kept
        return tensors

    def stored_as(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors of other shapes under the names, and in the formats, that the folder has."""
        found = {}
        for name, tensor in tensors.items():
            (piece,) = self._stored[name]
            found[piece.stored.name] = tensor.to("cpu", torch_dtype(piece.stored))
        return found

    def _parameter_of(self, layer: str) -> str:
        own = f"{layer}.weight"
        return own if own in self._stored else parameter_of(layer)

    def _load(
        self,
        names: Iterable[str],
        device: torch.device | str,
        pruned: Mapping[str, StoredTensor],
    ) -> None:
        aliases = []
        for name in names:
            if name not in self._stored:
                aliases.append(name)
                continue
            set_tensor(self._model, name, self._read(name, pruned).to(device))
        for name in aliases:  # tied tensors are stored once
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


def _commonest_dtype(tensors: Iterable[StoredTensor]) -> torch.dtype:
    elements: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOAT_BYTES:
            elements[torch_dtype(tensor)] += tensor.elements
    return elements.most_common(1)[0][0] if elements else torch.float32


def _refuse_quantised(
    folder: Path, config: PreTrainedConfig, stored: Iterable[StoredTensor]
) -> None:
    """Refuse a model whose configuration says that it is quantised, if its tensors say so too.

    Some tools leave such a section where weights are only sparse.
    """
    if getattr(config, "quantization_config", None) is None:
        return
    for tensor in stored:
        if len(tensor.shape) > 1 and tensor.dtype not in FLOAT_BYTES:
            raise UserError(
                f"{folder} holds quantised weights ({tensor.name} is {tensor.dtype}), which cannot "
                "be pruned; give the model in float16, bfloat16 or float32"
            )
    del config.quantization_config
