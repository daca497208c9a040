"""Open what a run's configuration names: tokenizer, dense model or pruned checkpoint."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..artifacts import verify_manifest
from ..config import PROJECT, Config
from ..models import load_config, load_model, load_tokenizer
from .device import resolve_device


def model_path(config: Config) -> str:
    """The model's folder or hub id; the testbed's models are found from any working directory."""
    shipped = PROJECT / config.model.path
    return str(shipped) if shipped.is_dir() else config.model.path


def open_tokenizer(config: Config) -> PreTrainedTokenizerBase:
    """The tokenizer of the run's model."""
    model = config.model
    return load_tokenizer(model_path(config), model.revision, model.trust_remote_code)


def open_dense(config: Config) -> PreTrainedModel:
    """The run's model as it is stored, on the CPU."""
    model = config.model
    return load_model(model_path(config), model.revision, "auto", model.trust_remote_code)


def open_for_evaluation(config: Config, checkpoint: Path | None) -> PreTrainedModel:
    """The verified checkpoint, or without one the dense model, on the run's device.

    On the CPU it computes in float32, because half precision is slow there; on a GPU in the
    precision that it is stored in.
    """
    device = resolve_device(config.device)
    dtype = "float32" if device.type == "cpu" else "auto"
    model = config.model
    if checkpoint is None:
        opened = load_model(model_path(config), model.revision, dtype, model.trust_remote_code)
    else:
        verify_manifest(checkpoint, rule="prune")
        opened = load_model(checkpoint, None, dtype, model.trust_remote_code)
    opened.to(device)  # type: ignore[arg-type]  # the library's decorator hides the argument
    return opened


def window_length(config: Config) -> int:
    """Tokens per window: the configured context, capped by what the model supports."""
    model = config.model
    described = load_config(model_path(config), model.revision, model.trust_remote_code)
    longest = getattr(described.get_text_config(), "max_position_embeddings", None)
    return min(model.context, longest or model.context)
