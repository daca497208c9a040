"""Open a model, its tokenizer or its configuration; every failure is one line with its remedy."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from thanos.errors import UserError

from .location import local_folder, weight_files
from .quiet import quiet

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 3


def load_config(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Return the configuration of the model at `path` (folder or hub id).

    Raises:
        UserError: no such model, or its config.json cannot be used.
    """
    folder = local_folder(path, revision, weights=False, trust_remote_code=trust_remote_code)
    return read_config(folder, trust_remote_code)


def load_tokenizer(
    path: str | Path, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model at `path` (folder or hub id).

    Raises:
        UserError: no such model, no tokenizer beside it, or a damaged one.
    """
    folder = local_folder(path, revision, weights=False, trust_remote_code=trust_remote_code)
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises plain Exception
            files = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
            if any((folder / name).exists() for name in files):
                raise UserError(f"tokenizer in {folder} is unusable: {_reason(error)}") from error
            raise UserError(
                f"{folder} holds no tokenizer (none of {', '.join(files)}); "
                "copy the model's tokenizer files there"
            ) from error


def load_model(
    folder: Path, dtype: torch.dtype | Literal["auto"] = "auto", trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return the causal language model in a folder, on the CPU, in evaluation mode.

    Args:
        folder: a model folder, see `local_folder`.
        dtype: "auto" keeps the checkpoint's.
        trust_remote_code: run the model's own Python files.

    Raises:
        UserError: no safetensors; a damaged file; a weight that is missing, of the wrong shape or
            not finite. Never leaves a weight newly initialised.
    """
    config = read_config(folder, trust_remote_code)
    weight_files(folder)
    with quiet():
        try:
            opened: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below, with the tensor's name
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            raise UserError(f"model in {folder} cannot be opened: {_reason(error)}") from error
    model, report = opened
    check_report(folder, report)
    _check_finite(folder, model)
    return model.eval()


def read_config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """Return the configuration in a model folder.

    Raises:
        UserError: its config.json cannot be used.
    """
    with quiet():
        try:
            return AutoConfig.from_pretrained(
                folder, trust_remote_code=trust_remote_code, local_files_only=True
            )
        except Exception as error:  # any value of any key of a config.json may be wrong
            raise UserError(f"{folder / 'config.json'} is unusable: {_reason(error)}") from error


def check_report(folder: Path, report: dict[str, Any]) -> None:
    """Judge what transformers reports of a checkpoint beside its model.

    Args:
        folder: of the checkpoint.
        report: `missing_keys`, `mismatched_keys` as (name, found, expected), `unexpected_keys`.

    Raises:
        UserError: a weight is missing or of the wrong shape; one that is not used is only logged.
    """
    if report["missing_keys"]:
        raise UserError(
            f"checkpoint in {folder} lacks weights of its model: {_some(report['missing_keys'])}; "
            "copy or download the model again"
        )
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise UserError(
            f"weight {name} in {folder} has shape {tuple(found)}, but config.json asks for "
            f"{tuple(expected)}; the two belong to different models"
        )
    if report["unexpected_keys"]:
        unused = _some(report["unexpected_keys"])
        logger.warning("checkpoint in %s holds weights its model does not use: %s", folder, unused)


def _check_finite(folder: Path, model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise UserError(
                f"weight {name} in {folder} holds NaN or infinite values; the checkpoint is damaged"
            )


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NAMES_SHOWN
    return ", ".join(ordered[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _reason(error: Exception) -> str:
    """The first line of a library's message, which often runs over many."""
    if "trust_remote_code" in str(error):
        return "the model brings its own Python code; set trust_remote_code to run it"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
