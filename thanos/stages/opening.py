"""Open what a run's configuration names: tokenizer, dense model or pruned checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..artifacts import verify_manifest
from ..config import Config
from ..model_path import model_path
from ..models.location import local_folder

if TYPE_CHECKING:  # a workflow that only asks where a model lies need not wait for these
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..models import StreamedBlocks


def dense_folder(config: Config) -> Path:
    """The folder of the run's model, fetched first if it lies on the hub."""
    model = config.model
    return local_folder(
        model_path(config),
        model.revision,
        weights=True,
        trust_remote_code=model.trust_remote_code,
    )


def open_tokenizer(config: Config) -> "PreTrainedTokenizerBase":
    """The tokenizer of the run's model."""
    from ..models import load_tokenizer

    model = config.model
    return load_tokenizer(model_path(config), model.revision, model.trust_remote_code)


def open_dense(config: Config) -> "PreTrainedModel":
    """The run's model as it is stored, on the CPU."""
    from ..models import load_model

    model = config.model
    return load_model(model_path(config), model.revision, "auto", model.trust_remote_code)


def open_pruned(config: Config, checkpoint: Path) -> "PreTrainedModel":
    """The run's pruned checkpoint as it is stored, on the CPU; verify it first."""
    from ..models import load_model

    return load_model(checkpoint, None, "auto", config.model.trust_remote_code)


def open_for_evaluation(config: Config, checkpoint: Path | None) -> "PreTrainedModel":
    """The verified checkpoint, or without one the dense model, on the run's device.

    On the CPU it computes in float32, because half precision is slow there; on a GPU in the
    precision that it is stored in.
    """
    from ..evaluation.quantization import quantize_model
    from ..models import load_model
    from .device import resolve_device

    device = resolve_device(config.device)
    dtype = "float32" if device.type == "cpu" else "auto"
    model = config.model
    if checkpoint is None:
        opened = load_model(model_path(config), model.revision, dtype, model.trust_remote_code)
    else:
        verify_manifest(checkpoint, maker="rule prune")
        opened = load_model(checkpoint, None, dtype, model.trust_remote_code)
    quantize_model(opened, config.evaluation.quantization)
    opened.to(device)  # type: ignore[arg-type]  # the library's decorator hides the argument
    return opened


def blocks_for_evaluation(config: Config, checkpoint: Path | None) -> "StreamedBlocks":
    """What `open_for_evaluation` opens, read block by block: it may be larger than the memory."""
    import torch

    from ..models import StreamedBlocks
    from .device import resolve_device

    if checkpoint is not None:
        verify_manifest(checkpoint, maker="rule prune")
    device = resolve_device(config.device)
    return StreamedBlocks(
        checkpoint or dense_folder(config),
        dtype=torch.float32 if device.type == "cpu" else None,
        device=device,
        trust_remote_code=config.model.trust_remote_code,
    )


def window_length(config: Config) -> int:
    """Tokens per window: the configured context, capped by what the model supports."""
    from ..models import load_config

    model = config.model
    described = load_config(model_path(config), model.revision, model.trust_remote_code)
    longest = getattr(described.get_text_config(), "max_position_embeddings", None)
    return min(model.context, longest or model.context)
