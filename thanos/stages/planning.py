"""The memory that pruning a run will take; imports no torch, so that rules can ask as well."""

from pathlib import Path

from ..config import Config
from ..model_path import model_path
from ..models.location import cached_folder, weight_files
from ..models.memory_plan import MIB, MemoryPlan, Statistics, Work, plan_memory
from ..models.safetensors_layout import read_layout
from ..pruning import compose, parse_pattern

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
        factorised=composition.needs_factor,
        refined=method.refine_steps > 0,
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
