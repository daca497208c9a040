"""A compact model on disk that no configuration can describe: weights beside buffers of indices."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_model
from torch import Tensor
from transformers import PreTrainedModel

from thanos.artifacts import MANIFEST, atomic_file, atomic_folder, verify_manifest, write_manifest
from thanos.errors import UserError
from thanos.models import load_config, load_model
from thanos.models.checkpoint import copy_description
from thanos.models.loading import adopt_generation_config
from thanos.models.safetensors_layout import damaged, read_layout
from thanos.models.skeleton import build_skeleton, set_tensor
from thanos.models.stored_weights import tied_names
from thanos.untrusted import parse_json

from .compact import compact_model
from .compact_linear import CompactLinear, OutlierRows
from .folders import check_checkpoint

FILE = "compact.safetensors"  # under a name that nothing else takes for the weights of a model
_FORMAT, _VERSION = "thanos-compact", "1"
_MAKER = "python -m thanos compact --indices"


def index_folder(source: Path, target: Path) -> list[str]:
    """Write the model in `source` to `target` without the columns that were pruned.

    Returns:
        The names of the layers that are smaller.

    Raises:
        UserError: no model folder, no layer that lost columns, or as `compact_model`.
    """
    check_checkpoint(source, target)
    model = load_model(source)
    names = compact_model(model)
    if not names:
        raise UserError(
            f"{source}: no layer has columns that are zero in most rows; `thanos pack` writes a "
            "form that leaves out zeros wherever they are"
        )
    modules = {name: model.get_submodule(name) for name in names}
    sizes = {name: [module.in_features, module.out_features] for name, module in modules.items()}
    facts = {"format": _FORMAT, "version": _VERSION, "layers": json.dumps(sizes)}
    with atomic_folder(target) as temporary:
        with atomic_file(temporary / FILE) as file:
            save_model(model, str(file), metadata=facts)
        copy_description(source, temporary)
        write_manifest(temporary, {"format": _FORMAT})
    return names


def load_compact(folder: str | Path, device: torch.device | str = "cpu") -> PreTrainedModel:
    """Open what `python -m thanos compact --indices` wrote.

    Args:
        folder: of the compact model.
        device: where to put it.

    Raises:
        UserError: not such a folder, or a damaged one.
    """
    folder = Path(folder)
    file = folder / FILE
    if not file.is_file() or not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} holds no {FILE}; {_MAKER} writes one")
    verify_manifest(folder, _MAKER)
    metadata, tensors = _read(file)
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise UserError(f"{file} is of another version; update thanos to open it")
    dtypes = [tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()]
    model = build_skeleton(load_config(folder), max(set(dtypes), key=dtypes.count))
    try:
        for name, size in parse_json(metadata["layers"]).items():
            parent, _, child = name.rpartition(".")
            model.get_submodule(name)  # it is one of the model's
            setattr(model.get_submodule(parent), child, _layer(name, size, tensors))
        _fill(model, tensors)
    except (KeyError, ValueError, TypeError, AttributeError, StopIteration) as error:
        raise damaged(file, f"it does not fit config.json: {error!s:.200}") from error
    adopt_generation_config(folder, model)
    return model.eval().to(device)


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    read_layout(file)
    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)


def _layer(name: str, size: Any, tensors: dict[str, Tensor]) -> CompactLinear:
    """The layer of these tensors, which are taken out."""

    def take(part: str) -> Tensor | None:
        return tensors.pop(f"{name}.{part}", None)

    width, height = size
    weight, bias, kept, placed = (take(part) for part in ("weight", "bias", "kept", "placed"))
    further, rows, columns = (take(f"outliers.{part}") for part in ("weight", "rows", "columns"))
    if weight is None:
        raise ValueError(f"no weight of {name}")
    kept, placed = _places(kept, weight.shape[1], width), _places(placed, len(weight), height)
    outliers = None
    if further is not None:
        rows, columns = (
            _places(rows, len(further), len(weight)),
            _places(columns, further.shape[1], width),
        )
        outliers = OutlierRows(further, rows, columns)
    return CompactLinear(width, height, weight, bias, outliers, kept, placed)


def _places(indices: Tensor | None, count: int, size: int) -> Tensor:
    """So many places below `size`; all, if none are given."""
    found = torch.arange(size) if indices is None else indices
    if len(found) != count or found.dtype != torch.int64:
        raise ValueError(f"{len(found)} places in place of {count}")
    if count and not 0 <= int(found.min()) <= int(found.max()) < size:
        raise ValueError(f"places beyond {size}")
    return found


def _fill(model: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Put the tensors where the model wants them; one that is tied to another is stored once."""
    expected = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_meta}
    for name, tensor in tensors.items():
        if name not in expected or expected[name].shape != tensor.shape:
            raise ValueError(f"{name!r:.80} of shape {tuple(tensor.shape)}")
        set_tensor(model, name, tensor)
    for name in expected.keys() - tensors.keys():
        partner = next(other for other in tied_names(model, name) if other in tensors)
        set_tensor(model, name, tensors[partner])
