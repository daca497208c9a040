"""Write a compact model to a folder and open it again as a normal torch module."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_model as load_tensors
from safetensors.torch import save_model as save_tensors
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.initialization import no_init_weights

from thanos.artifacts import atomic_folder, read_json, verify_manifest, write_manifest
from thanos.errors import UserError
from thanos.models import load_config

from .compact_linear import CompactLinear, CompactShape

DESCRIPTION = "compact.json"
# Not model.safetensors: from_pretrained would find it and initialise what it does not know.
_WEIGHTS = "compact.safetensors"
_FORMAT, _VERSION = "thanos-compact", 1


def save_compact(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path
) -> None:
    """Write a model that `compact_model` changed to `folder`, which must not exist.

    Raises:
        UserError: the folder exists, or no layer of the model is compact.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already; give another folder or remove it")
    layers = {
        name: module.shape.to_json()
        for name, module in model.named_modules()
        if isinstance(module, CompactLinear)
    }
    if not layers:
        raise UserError(f"{type(model).__name__} has no compact layer; run compact_model first")
    dtype = str(model.dtype).removeprefix("torch.")
    description = {"format": _FORMAT, "version": _VERSION, "dtype": dtype, "layers": layers}
    with atomic_folder(folder) as temporary:
        model.config.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        save_tensors(model, str(temporary / _WEIGHTS))
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        write_manifest(temporary, {"format": _FORMAT})


def load_compact(folder: Path) -> PreTrainedModel:
    """Open a folder that `save_compact` wrote, on the CPU, in evaluation mode.

    Raises:
        UserError: it is no such folder, or a file of it is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        raise UserError(f"{folder} is not a compact model: it has no {DESCRIPTION}")
    verify_manifest(folder, maker="save_compact")
    description = read_json(folder / DESCRIPTION)
    if (description.get("format"), description.get("version")) != (_FORMAT, _VERSION):
        raise UserError(
            f"{folder / DESCRIPTION} is of another version; make the model compact anew"
        )
    dtype = getattr(torch, description["dtype"])
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(load_config(folder), dtype=dtype)
    for name, shape in description["layers"].items():
        parent, _, child = name.rpartition(".")
        module = CompactLinear(CompactShape(**shape), dtype, torch.device("cpu"))
        setattr(model.get_submodule(parent), child, module)
    model.tie_weights()
    load_tensors(model, str(folder / _WEIGHTS))
    return model.eval()
