"""The content of a model's folder: its weights, and everything that describes them."""

from pathlib import Path

from ..artifacts import MANIFEST, read_json
from ..content import folder_hash
from ..models.location import listed_weight_files
from .inputs import ModelSpec

# Weights in any form, and texts for people: all else may say how the model works.
_NO_DESCRIPTION = {
    *(".safetensors", ".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth"),
    *(".csv", ".md", ".pdf", ".png"),
}
# Where the weights lie, and what pruning wrote of its making: neither describes the model.
_APART = (MANIFEST, "model.safetensors.index.json")


def weights_hash(folder: Path) -> str:
    """The hash of a folder's weight files.

    Raises:
        UserError: it holds none that can be read.
    """
    return folder_hash(folder, [file for file in listed_weight_files(folder) if file.is_file()])


def description_hash(folder: Path) -> str:
    """The hash of configuration, tokenizer and the model's own Python files."""
    found = (f for f in folder.glob("[!.]*") if f.is_file() and f.name not in _APART)
    return folder_hash(folder, [f for f in found if f.suffix not in _NO_DESCRIPTION])


def local_model(path: str, trust_remote_code: bool) -> ModelSpec:
    """The spec of a model in a local folder."""
    folder = Path(path)
    weights, description = weights_hash(folder), description_hash(folder)
    return ModelSpec(path, None, trust_remote_code, weights, description)


def channels_moved(folder: Path) -> bool:
    """Whether channels of the model in a folder changed places when it was pruned, as far as said.

    Raises:
        UserError: what it says of its making is damaged.
    """
    manifest = folder / MANIFEST
    spec = read_json(manifest).get("spec") if manifest.is_file() else None
    while isinstance(spec, dict) and not spec.get("channel_permutation"):
        spec = spec.get("model")  # a model that was trained, of one that was pruned
    return isinstance(spec, dict)
