"""The weights of a model folder under the names that the model itself uses."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from thanos.errors import UserError

from .loading import check_report
from .safetensors_layout import StoredTensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "BOOL": torch.bool,
    "U8": torch.uint8,
}


def torch_dtype(stored: StoredTensor) -> torch.dtype:
    """The dtype of a stored tensor.

    Raises:
        UserError: it is none that a weight can be pruned in.
    """
    if stored.dtype not in _DTYPES:
        raise UserError(
            f"{stored.name} in {stored.file} is stored as {stored.dtype}, a quantised format; "
            "give the model in float16, bfloat16 or float32"
        )
    return _DTYPES[stored.dtype]


def read_tensor(stored: StoredTensor) -> Tensor:
    """Read a tensor with plain reads: a mapped file would count as memory until it is closed.

    Raises:
        UserError: it holds NaN or infinite values.
    """
    flat = torch.empty(stored.elements, dtype=torch_dtype(stored))
    with stored.file.open("rb", buffering=0) as stream:
        stream.seek(stored.start)
        view = flat.view(torch.uint8).numpy().data
        while view:
            count = stream.readinto(view)
            if not count:
                raise UserError(f"weight file {stored.file} ends too early; was it replaced?")
            view = view[count:]
    if flat.is_floating_point() and not torch.isfinite(flat).all():
        raise UserError(
            f"weight {stored.name} in {stored.file} holds NaN or infinite values; "
            "the checkpoint is damaged"
        )
    return flat.view(stored.shape)


def match_names(
    model: PreTrainedModel, stored: dict[str, StoredTensor], folder: Path
) -> dict[str, StoredTensor]:
    """Return what is stored for every tensor of the model, under the model's own names.

    Checkpoints may use older names or leave out a prefix; transformers' rules for that are
    applied. A tied tensor that is stored once is returned once.

    Args:
        model: its parameters may lie on the meta device.
        stored: by name in the files.
        folder: of the model, for messages.

    Raises:
        UserError: a tensor is missing, has another shape, or is stored in pieces that transformers
            would put together.
    """
    expected: dict[str, Any] = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    found: dict[str, StoredTensor] = {}
    unused = []
    for name, tensor in stored.items():
        prefix = model.base_model_prefix
        own, converted = rename_source_key(name, renamings, converters, prefix, expected)
        if own not in expected and name in expected:
            own, converted = rename_source_key(name, [], [], prefix, expected)
        if converted is not None:
            raise UserError(
                f"weight {name} in {folder} is stored in another layout than the model's, "
                "which cannot be read block by block"
            )
        if own in expected:
            found[own] = tensor
        else:
            unused.append(own)
    missing = [name for name in expected if name not in found and not _tied(model, name, found)]
    check_report(
        folder,
        {
            "missing_keys": missing,
            "mismatched_keys": [
                (name, tensor.shape, expected[name].shape)
                for name, tensor in found.items()
                if tensor.shape != tuple(expected[name].shape)
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


def _tied(model: PreTrainedModel, name: str, found: dict[str, StoredTensor]) -> bool:
    return not tied_names(model, name).isdisjoint(found)


def _without_known(model: PreTrainedModel, names: list[str]) -> list[str]:
    """Leave out buffers that older releases wrote into checkpoints and that are computed now."""
    known = {r"rotary_emb\.inv_freq", r"(^|\.)position_ids$"}
    known |= set(model._keys_to_ignore_on_load_unexpected or ())
    return [name for name in names if not any(re.search(pattern, name) for pattern in known)]
