"""Open a packed checkpoint as a model, without the restored files."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from thanos.errors import UserError
from thanos.models import load_model
from thanos.models.loading import adopt_generation_config
from thanos.models.stored_weights import torch_dtype

from .folders import verified_packed
from .packing import unpacked_tensors


def load_packed(folder: str | Path, device: torch.device | str = "cpu") -> PreTrainedModel:
    """Open what `python -m thanos pack` wrote, as `unpack` and transformers would.

    Args:
        folder: the packed folder.
        device: where to put the model.

    Raises:
        UserError: not a packed folder, a damaged file, or weights that are not those of a model.
    """
    folder = Path(folder)
    files = [folder / name for name in verified_packed(folder)["files"]]
    weights = {}
    for file in files:
        if file.match("model*.safetensors") and file.parent == folder:
            for stored, values in unpacked_tensors(file):
                dtype = torch_dtype(stored)
                weights[stored.name] = torch.from_numpy(values).view(dtype).view(stored.shape)
    if not weights:
        raise UserError(f"{folder} holds no weights of a model; unpack it to see what it is")
    model = load_model(folder, weights=weights)
    adopt_generation_config(folder, model)
    return model.to(device)  # type: ignore[arg-type]  # the library's decorator hides the argument
