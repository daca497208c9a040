"""The memory that a spec's job will take; imports no torch, so that rules can ask as well."""

import functools
from pathlib import Path

from ..identity import EvaluationSpec, LatencySpec, ModelSpec, Place, PruningSpec
from ..models.location import cached_folder, weight_files
from ..models.memory_plan import MIB, MemoryPlan, Statistics, Work, plan_memory
from ..models.safetensors_layout import read_layout
from ..opening import dequantized_folder, model_location
from ..pruning.patterns import Structured, Unstructured

_PROGRAM = 800 * MIB  # interpreter and libraries
# Where the model is not on this machine, so that nothing is known of it.
_UNKNOWN_MB = {"prune": 16000, "evaluate": 16000, "efficiency": 32000}


def plan_pruning(spec: PruningSpec, place: Place, folder: Path, *, on_device: bool) -> MemoryPlan:
    """Expected peaks of pruning the model in `folder`.

    Args:
        spec: of the pruned model.
        place: its budgets and batch size.
        folder: of the dense model.
        on_device: whether blocks are pruned on an accelerator.

    Raises:
        UserError: the folder holds no usable model.
    """
    method, calibration = spec.method, spec.calibration
    statistics: Statistics = "gram"
    if not spec.layer_errors and not method.needs_factor:
        from ..pruning import required_statistics  # imports torch

        statistics = required_statistics(
            method, spec.outlier_fraction, spec.refine_steps, spec.outlier_score
        )
    work = Work(
        windows=calibration.windows if calibration else 0,
        tokens=calibration.context if calibration else 0,
        batch_size=place.calibration_batch,
        statistics=statistics,
        squares=_squares(spec),
        temporaries=_temporaries(spec, statistics),
        precision=8 if spec.precision == "float64" else 4,
        hidden_budget=place.hidden_budget,
    )
    return _planned(folder, work, on_device)


def pruning_mb(spec: PruningSpec, place: Place) -> int:
    """`mem_mb` of a pruning job; with `device=auto` what a machine without accelerator needs.

    Raises:
        UserError: the model on this machine is not usable.
    """
    folder = _folder(spec.model, place)
    if folder is None:
        return _UNKNOWN_MB["prune"]
    plan = plan_pruning(spec, place, folder, on_device=place.device.startswith("cuda"))
    return -(-plan.host // MIB)


def evaluation_mb(spec: EvaluationSpec, place: Place) -> int:
    """`mem_mb` of an evaluation: tasks load the whole model, perplexity goes by blocks."""
    return _whole_models_mb(spec.base, place, 1) or _UNKNOWN_MB["evaluate"]


def latency_mb(spec: LatencySpec, place: Place) -> int:
    """`mem_mb` of a measurement of latencies: the dense and the pruned model side by side."""
    return _whole_models_mb(spec.pruning.model, place, 2) or _UNKNOWN_MB["efficiency"]


def _whole_models_mb(model: ModelSpec, place: Place, models: int) -> int | None:
    folder = _folder(model, place)
    if folder is None:
        return None
    # On a CPU they compute in float32; the slack is for logits and copies of a layer.
    return -(-int(_PROGRAM + 1.25 * models * 4 * _elements(folder)) // MIB)


def _folder(model: ModelSpec, place: Place) -> Path | None:
    """The model's folder, looked for until it is there: a job may fetch it."""
    if model.gguf is not None and not dequantized_folder(model, place).is_dir():
        return None
    key = (model_location(model, place), model.revision)
    if key not in _folders and (folder := cached_folder(*key)) is not None:
        _folders[key] = folder
    return _folders.get(key)


# Thousands of jobs ask for a handful of models.
_folders: dict[tuple[str, str | None], Path] = {}
_planned = functools.cache(
    lambda folder, work, on_device: plan_memory(folder, work, on_device=on_device)
)


@functools.cache
def _elements(folder: Path) -> int:
    tensors = (tensor for file in weight_files(folder) for tensor in read_layout(file).values())
    return sum(tensor.elements for tensor in tensors)


def _squares(spec: PruningSpec) -> float:
    """Matrices as large as G beside it: see `thanos.pruning` for who keeps what."""
    if spec.refine_steps:
        return 4  # U, a copy of G, and the system that is solved while it is scaled
    if isinstance(spec.pattern, Structured) and spec.method.update == "joint":
        # G regular, and its kept part three times: as it is, damped, and factorised; perhaps U.
        return 1 + 3 * (1 - spec.pattern.p) ** 2 + (spec.method.metric == "sparsegpt")
    return int(spec.method.needs_factor)  # U


def _temporaries(spec: PruningSpec, statistics: Statistics) -> int:
    """Matrices as large as W in one segment of rows, without a limit on the segment."""
    if spec.refine_steps:
        return 10  # conjugate gradients
    if spec.method.scope == "row" and isinstance(spec.pattern, Unstructured):
        return 8  # scores and their order
    return 3 if statistics == "gram" else 1  # the relative error's; the finished mask's
