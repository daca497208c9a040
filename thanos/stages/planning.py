"""The memory that pruning a run will take; imports no torch, so that rules can ask as well."""

from pathlib import Path

from ..config import Config
from ..model_path import model_path
from ..models.location import cached_folder, weight_files
from ..models.memory_plan import MIB, MemoryPlan, Statistics, Work, plan_memory
from ..models.safetensors_layout import read_layout
from ..pruning import compose, parse_pattern
from ..pruning.composition import Method
from ..pruning.patterns import Structured, Unstructured

GIB = 1024 * MIB
_PROGRAM = 800 * MIB  # interpreter and libraries


def plan_run(config: Config, folder: Path, *, on_device: bool) -> MemoryPlan:
    """Expected peaks of pruning the model in `folder` as the run asks for it.

    Args:
        config: of the run, not dense.
        folder: of the dense model.
        on_device: whether blocks are pruned on an accelerator.

    Raises:
        UserError: the folder holds no usable model.
    """
    method = config.method
    composition = compose(
        method.name, parse_pattern(config.pattern), method.metric, method.scope, method.update
    )
    statistics: Statistics = "gram"
    if not config.layer_errors and not composition.needs_factor:
        from ..pruning import required_statistics  # imports torch

        statistics = required_statistics(composition, config.outlier_fraction, method.refine_steps)
    work = Work(
        windows=config.calibration.windows,
        tokens=config.model.context,
        batch_size=config.calibration.batch_size,
        statistics=statistics,
        squares=_squares(composition, config),
        temporaries=_temporaries(composition, config, statistics),
        precision=8 if config.precision == "float64" else 4,
        hidden_budget=hidden_budget(config),
    )
    return plan_memory(folder, work, on_device=on_device)


def evaluation_memory_mb(config: Config, models: int = 1) -> int | None:
    """`mem_mb` of a job that holds whole models; None if the model is not on this machine.

    Args:
        config: of the run.
        models: 1 for zero-shot tasks, 2 where the dense model is measured beside the pruned one.
    """
    folder = cached_folder(model_path(config), config.model.revision)
    if folder is None:
        return None
    stored = [tensor for file in weight_files(folder) for tensor in read_layout(file).values()]
    weights = sum(tensor.elements for tensor in stored)
    # On a CPU they compute in float32; the slack is for logits and copies of a layer.
    return -(-int(_PROGRAM + 1.25 * models * 4 * weights) // MIB)


def _squares(composition: Method, config: Config) -> float:
    """Matrices as large as G beside it: see `thanos.pruning` for who keeps what."""
    pattern = parse_pattern(config.pattern)
    if config.method.refine_steps:
        return 4  # U, a copy of G, and the system that is solved while it is scaled
    if isinstance(pattern, Structured) and composition.update == "joint":
        # G regular, and its kept part three times: as it is, damped, and factorised; perhaps U.
        return 1 + 3 * (1 - pattern.p) ** 2 + (composition.metric == "sparsegpt")
    return int(composition.needs_factor)  # U


def _temporaries(composition: Method, config: Config, statistics: Statistics) -> int:
    """Matrices as large as W in one segment of rows, without a limit on the segment."""
    if config.method.refine_steps:
        return 10  # conjugate gradients
    if composition.scope == "row" and isinstance(parse_pattern(config.pattern), Unstructured):
        return 8  # scores and their order
    return 3 if statistics == "gram" else 1  # the relative error's; the finished mask's


def hidden_budget(config: Config) -> int:
    """Bytes of hidden states to keep in memory; beyond, they lie in mapped files."""
    return int(config.hidden_memory * GIB)


def expected_memory_mb(config: Config) -> int | None:
    """`mem_mb` of a run's pruning job; None if there is nothing to prune or the model is not here.

    With `device=auto` it is what a machine without accelerator needs.
    """
    folder = cached_folder(model_path(config), config.model.revision)
    if config.dense or folder is None:
        return None
    plan = plan_run(config, folder, on_device=config.device.startswith("cuda"))
    return -(-plan.host // MIB)
