"""The weights of a model folder under the names that the model itself uses."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from thanos.errors import UserError

from .dtypes import TORCH_DTYPES
from .loading import check_report
from .safetensors_layout import FLOAT_BYTES, StoredTensor

# Of a tensor: what is read, checked and converted in one piece.
_NUMBERS_AT_ONCE = 4 * 2**20


def torch_dtype(stored: StoredTensor) -> torch.dtype:
    """The dtype of a stored tensor.

    Raises:
        UserError: it is none that a weight can be pruned in.
    """
    if stored.dtype not in TORCH_DTYPES:
        raise UserError(
            f"{stored.name} in {stored.file} is stored as {stored.dtype}, a quantised format; "
            "give the model in float16, bfloat16 or float32"
        )
    return TORCH_DTYPES[stored.dtype]


def read_tensor(stored: StoredTensor, dtype: torch.dtype | None = None) -> Tensor:
    """Read a tensor with plain reads: a mapped file would count as memory until it is closed.

    Args:
        stored: where it lies.
        dtype: to widen or narrow floating point numbers to, piece by piece.

    Raises:
        UserError: it holds NaN or infinite values.
    """
    own = torch_dtype(stored)
    wanted = dtype if dtype is not None and own.is_floating_point else own
    flat = torch.empty(stored.elements, dtype=wanted)
    with stored.file.open("rb", buffering=0) as stream:
        stream.seek(stored.start)
        for piece in flat.split(_NUMBERS_AT_ONCE):
            read = piece if wanted == own else torch.empty(len(piece), dtype=own)
            _fill(read, stream, stored.file)
            if own.is_floating_point and not torch.isfinite(read).all():
                raise UserError(
                    f"weight {stored.name} in {stored.file} holds NaN or infinite values; "
                    "the checkpoint is damaged"
                )
            if read is not piece:
                piece.copy_(read)
    return flat.view(stored.shape)


def _fill(piece: Tensor, stream: RawIOBase, file: Path) -> None:
    view = piece.view(torch.uint8).numpy().data
    while view:
        count = stream.readinto(view)
        if not count:
            raise UserError(f"weight file {file} ends too early; was it replaced?")
        view = view[count:]


@dataclass(frozen=True)
class Piece:
    """What a stored tensor is in the model: a tensor, or a part of one."""

    stored: StoredTensor
    place: tuple[int | slice, ...] = ()  # in the model's tensor; () is all of it


def match_names(
    model: PreTrainedModel, stored: dict[str, StoredTensor], folder: Path
) -> dict[str, list[Piece]]:
    """Return what is stored for every tensor of the model, under the model's own names.

    Checkpoints may use older names or leave out a prefix; transformers' rules for that are
    applied. A tied tensor that is stored once is returned once. The matrices of a mixture's experts
    are stored one by one and are pieces of one tensor of the model.

    Args:
        model: its parameters may lie on the meta device.
        stored: by name in the files.
        folder: of the model, for messages.

    Raises:
        UserError: a tensor is missing, has another shape, or is stored in another layout than the
            model's.
    """
    expected: dict[str, Any] = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, list[Piece]] = {}
    unused = []
    for name, tensor in stored.items():
        prefix = model.base_model_prefix
        own, converted = rename_source_key(name, renamings, converters, prefix, expected)
        if own not in expected and name in expected:
            own, converted = rename_source_key(name, [], [], prefix, expected)
        if own not in expected:
            unused.append(own)
        elif converted is None:
            found[own] = [Piece(tensor)]
        else:
            converter = next(c for c in converters if converted in c.source_patterns)
            place = _place_of_expert(name, converted, converter, expected[own].shape)
            if place is None:
                raise UserError(
                    f"weight {name} in {folder} is stored in another layout than the model's, "
                    "which cannot be read block by block"
                )
            found.setdefault(own, []).append(Piece(tensor, place))
    missing = [name for name in expected if name not in found and not _tied(model, name, found)]
    missing += [name for name, pieces in found.items() if not _complete(pieces, expected[name])]
    check_report(
        folder,
        {
            "missing_keys": missing,
            "mismatched_keys": [
                (name, piece.stored.shape, expected[name][piece.place].shape)
                for name, pieces in found.items()
                for piece in pieces
                if piece.stored.shape != tuple(expected[name][piece.place].shape)
            ],
            "unexpected_keys": _without_known(model, unused),
        },
    )
    return found


def tied_names(model: PreTrainedModel, name: str) -> set[str]:
    """Names of the tensors that are one with the tensor `name`, itself left out."""
    tied = model.all_tied_weights_keys  # name -> the one that it is tied to
    source = tied.get(name, name)
    return ({source} | {other for other, its in tied.items() if its == source}) - {name}


def _place_of_expert(
    name: str, pattern: str, converter: WeightConverter, shape: torch.Size
) -> tuple[int | slice, ...] | None:
    """Where an expert's matrix goes in (experts, rows, columns); None for other conversions.

    Args:
        name: in the file.
        pattern: of the converter, that matched it: `.experts.*.w3.weight`.
        converter: merges experts, and stacks the matrices of an expert in its patterns' order.
        shape: of the model's tensor.
    """
    steps = [(type(step), getattr(step, "dim", None)) for step in converter.operations]
    parts = len(converter.source_patterns)
    merged = steps == [(MergeModulelist, 0), (Concatenate, 1)][: 1 if parts == 1 else 2]
    number = re.search(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    if not (merged and number and len(shape) == 3):
        return None
    rows = shape[1] // parts
    part = converter.source_patterns.index(pattern)
    return int(number[1]), slice(part * rows, (part + 1) * rows)


def _complete(pieces: list[Piece], whole: Tensor) -> bool:
    return sum(whole[piece.place].numel() for piece in pieces) == whole.numel()


def _tied(model: PreTrainedModel, name: str, found: dict[str, list[Piece]]) -> bool:
    return not tied_names(model, name).isdisjoint(found)


def _without_known(model: PreTrainedModel, names: list[str]) -> list[str]:
    """Leave out buffers that older releases wrote into checkpoints and that are computed now."""
    known = {r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"}
    known |= set(model._keys_to_ignore_on_load_unexpected or ())
    return [name for name in names if not any(re.search(pattern, name) for pattern in known)]


def commonest_dtype(tensors: Iterable[StoredTensor]) -> torch.dtype:
    """What most of the numbers are stored in."""
    elements: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.dtype in FLOAT_BYTES:
            elements[torch_dtype(tensor)] += tensor.elements
    return elements.most_common(1)[0][0] if elements else torch.float32


def refuse_quantised(
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
