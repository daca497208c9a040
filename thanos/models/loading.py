"""Open a model; every failure is one line with its remedy."""

import logging
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from thanos.errors import UserError

from .description import read_config, reason_of
from .location import weight_files
from .quiet import quiet
from .skeleton import build_skeleton

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 3


def load_model(
    folder: Path,
    dtype: torch.dtype | Literal["auto"] = "auto",
    trust_remote_code: bool = False,
    weights: dict[str, Tensor] | None = None,
) -> PreTrainedModel:
    """Return the causal language model in a folder, on the CPU, in evaluation mode.

    Args:
        folder: a model folder, see `local_folder`.
        dtype: "auto" keeps the checkpoint's.
        trust_remote_code: run the model's own Python files.
        weights: by their names in its files, in place of what these hold.

    Raises:
        UserError: no safetensors; a damaged file; a weight that is missing, of the wrong shape or
            not finite. Never leaves a weight newly initialised.
    """
    config = read_config(folder, trust_remote_code)
    if weights is None:
        weight_files(folder)
    with quiet():
        try:
            kind: Any = AutoModelForCausalLM
            if weights is not None:  # only a model's own class takes them without a folder
                kind = type(build_skeleton(deepcopy(config), torch.float32))
            opened: Any = kind.from_pretrained(
                folder if weights is None else None,
                state_dict=weights,
                config=config,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below, with the tensor's name
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
            raise UserError(f"model in {folder} cannot be opened: {reason_of(error)}") from error
    model, report = opened
    check_report(folder, report)
    _check_finite(folder, model)
    return model.eval()


def adopt_generation_config(folder: Path, model: PreTrainedModel) -> None:
    """Let the model generate as its folder says: what ends a text, for one.

    Raises:
        UserError: its generation_config.json cannot be used.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    with quiet():
        try:
            model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
        except Exception as error:  # any value of any key may be wrong
            raise UserError(f"{file} is unusable: {reason_of(error)}") from error


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
