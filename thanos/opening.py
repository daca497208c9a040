"""Open what a spec names, at a place: tokenizer, dense model or pruned checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from .artifacts import MANIFEST, verify_manifest
from .content import file_hash
from .data.files import check_file
from .errors import UserError
from .identity import ModelSpec, Place, TextSpec
from .identity.models import description_hash, weights_hash
from .models.context import longest_window
from .models.location import local_folder, mirrored_folder, with_safetensors

if TYPE_CHECKING:  # a command that only asks where a model lies need not wait for these
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAKER = "rule model"  # of safetensors of a GGUF file


def model_location(model: ModelSpec, place: Place) -> str:
    """The model's folder, or its hub id if there is no mirror to look it up in.

    Raises:
        UserError: the mirror has no such model, or safetensors of a GGUF file are not made yet.
    """
    if model.gguf is not None:
        if not (dequantized_folder(model, place) / MANIFEST).is_file():
            raise UserError(
                f"model {model.path} is not there as safetensors; `snakemake "
                f"{dequantized_folder(model, place)}` makes them, and so does a run by hand"
            )
        return str(dequantized_folder(model, place))
    if not model.on_hub or place.mirror is None:
        return model.path
    folder = mirrored_folder(Path(place.mirror), model.path, model.revision)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"mirror {place.mirror} has no model {model.path}: {folder} holds no config.json; run "
            "`snakemake mirror` where there is network, or copy the model's folder there"
        )
    return str(folder)


def dequantized_folder(model: ModelSpec, place: Place) -> Path:
    """Where the safetensors of a model in a GGUF file lie, once they are made."""
    return Path(place.models_dir) / model.id


def dense_folder(model: ModelSpec, place: Place) -> Path:
    """The folder of a model's safetensors: fetched if it lies on the hub, converted from pickles.

    Raises:
        UserError: it is not to be had, or its weights are no longer those of the spec.
    """
    folder = local_folder(
        model_location(model, place),
        model.revision,
        weights=True,
        trust_remote_code=model.trust_remote_code,
    )
    if model.gguf is not None:
        verify_manifest(folder, MAKER)
    elif not model.on_hub and model.weights != weights_hash(folder):
        raise UserError(_changed(folder))
    return with_safetensors(folder, model.trust_remote_code)


def open_tokenizer(model: ModelSpec, place: Place) -> "PreTrainedTokenizerBase":
    """The model's tokenizer."""
    from .models import load_tokenizer

    _check_description(model, place)
    location = model_location(model, place)
    return load_tokenizer(location, model.revision, model.trust_remote_code)


def open_dense(model: ModelSpec, place: Place) -> "PreTrainedModel":
    """The model as it is stored, on the CPU."""
    from .models import load_model

    return load_model(dense_folder(model, place), "auto", model.trust_remote_code)


def window_length(model: ModelSpec, context: int, place: Place) -> int:
    """Tokens per window: the context asked for, capped by what the model supports."""
    from .models import load_config

    location = model_location(model, place)
    described = load_config(location, model.revision, model.trust_remote_code)
    return min(context, longest_window(described.get_text_config(decoder=True)) or context)


def _check_description(model: ModelSpec, place: Place) -> None:
    if model.gguf is not None:
        verify_manifest(Path(model_location(model, place)), MAKER)
        return
    folder = Path(model.path)
    if not model.on_hub and folder.is_dir() and model.description != description_hash(folder):
        raise UserError(_changed(folder))


def _changed(folder: Path) -> str:
    return f"model {folder} has changed since this was planned; run the same command again"


def checked_text(text: TextSpec, use: str) -> str | None:
    """The path of a text's own file, if it has one.

    Raises:
        UserError: the file is gone, or no longer holds what the spec says.
    """
    if text.path is None:
        return None
    check_file(Path(text.path), f"{use}.path")
    if text.content != file_hash(Path(text.path)):
        raise UserError(
            f"{use}.path: {text.path} has changed since this was planned; "
            "run the same command again"
        )
    return text.path
