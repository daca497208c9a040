"""Prune a model and write the checkpoint and the record of every layer.

    python -m thanos.stages.prune config.yaml --calibration <folder> --checkpoint <folder> \\
        --record pruning.json

Finished blocks lie in <checkpoint>.partial/ until all is written; if the command is interrupted or
killed, the same command goes on from there.
"""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..artifacts import verify_manifest, write_json, write_manifest
from ..config import Config, load
from ..data.windows import tokens_hash
from ..errors import UserError
from ..models import (
    FinishedBlocks,
    LayerRecord,
    PruneLayer,
    StreamedBlocks,
    copy_checkpoint,
    hidden_states,
    prune_model,
    work_folder,
)
from ..models.location import weight_files
from ..models.sequential import Statistics
from ..provenance import library_versions, provenance
from ..pruning import (
    InputStatistics,
    PruningResult,
    compose,
    parse_pattern,
    prune_weight,
    required_statistics,
)
from .calibrate import read_windows
from .command import parser, run_command
from .device import resolve_device
from .opening import dense_folder, open_tokenizer
from .planning import hidden_budget, plan_run

logger = logging.getLogger(__name__)


def layer_pruner(
    config: Config, storage_dtype: torch.dtype
) -> Callable[[torch.Tensor, InputStatistics | None], PruningResult]:
    """The run's pruning of one layer as a function of its weight and input statistics.

    The result is rounded to what the checkpoint stores, whatever precision the blocks run in, so
    that later blocks are calibrated on the very weights that are written.
    """
    method = config.method

    def prune_layer(weight: torch.Tensor, statistics: InputStatistics | None) -> PruningResult:
        return prune_weight(
            weight.to(storage_dtype),
            statistics,
            method.name,
            config.pattern,
            block_size=method.block_size,
            outlier_fraction=config.outlier_fraction,
            damping=method.damping,
            refine_steps=method.refine_steps,
            metric=method.metric,
            scope=method.scope,
            update=method.update,
            outlier_score=method.outlier_score,
            dtype=getattr(torch, config.precision),
            memory_budget=config.memory_budget,
            measure_error=config.layer_errors,
        )

    return prune_layer


def data_free_pruner(
    config: Config, needed: Statistics, storage_dtype: torch.dtype
) -> PruneLayer | None:
    """How experts that saw too few tokens are pruned; None if that is an error.

    Args:
        config: of the run.
        needed: the statistics that its method needs; without any, no expert saw too few.
        storage_dtype: what the checkpoint stores.
    """
    if needed != "none" and config.model.rare_experts == "error":
        return None

    def prune_layer(weight: torch.Tensor, _: InputStatistics | None) -> PruningResult:
        # Outlier rows are chosen by the inputs, so there are none.
        return prune_weight(weight.to(storage_dtype), None, "magnitude", config.pattern)

    return prune_layer


def prune(config: Config, windows: torch.Tensor, checkpoint: Path, work: Path) -> dict[str, Any]:
    """Prune the run's model block by block and return the record that becomes `pruning.json`.

    Args:
        config: of the run, not dense.
        windows: (n, T) calibration token ids.
        checkpoint: the folder to write, without its manifest.
        work: where finished blocks are kept; those of an earlier attempt are not done again.
    """
    method = config.method
    composition = compose(
        method.name, parse_pattern(config.pattern), method.metric, method.scope, method.update
    )
    needed = required_statistics(composition, config.outlier_fraction, method.refine_steps)
    device = resolve_device(config.device)
    folder = dense_folder(config)
    plan = plan_run(config, folder, on_device=device.type != "cpu")
    logger.info("expected peak memory: %s", plan)
    started = time.perf_counter()
    finished = FinishedBlocks(work, _identity(config, windows, folder, device))
    resumed = len(finished)
    model = StreamedBlocks(
        folder,
        # On the CPU half precision is slow; on a GPU blocks run in the stored precision.
        dtype=torch.float32 if device.type == "cpu" else None,
        trust_remote_code=config.model.trust_remote_code,
        finished=finished,
    )
    try:
        layers = prune_model(
            model,
            windows,
            layer_pruner(config, model.storage_dtype),
            statistics="gram" if config.layer_errors else needed,
            batch_size=config.calibration.batch_size,
            device=device,
            statistics_dtype=getattr(torch, config.precision),
            skip=config.model.skip,
            data_free=data_free_pruner(config, needed, model.storage_dtype),
            done=tuple(finished.records),
            hidden=hidden_states(model.hidden_bytes(windows.numel()), hidden_budget(config), work),
        )
    except UserError as error:
        # Memory may be free next time; any other remedy changes what the finished blocks depend on.
        if not isinstance(error.__cause__, torch.OutOfMemoryError):
            finished.discard()
        raise
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    copy_checkpoint(folder, finished.tensors, open_tokenizer(config), checkpoint)
    return {
        **_summary(layers),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak_memory(device),
        "memory_plan": asdict(plan),
        "resumed_blocks": resumed,
        "layers": [_layer_row(layer) for layer in layers],
    }


def _identity(
    config: Config, windows: torch.Tensor, folder: Path, device: torch.device
) -> dict[str, Any]:
    """All that the pruned weights depend on; how much memory the machine has is no part of it."""
    values = config.identity()
    identity = {
        f"{group}.{key}": value
        for group in ("model", "method")
        for key, value in values.pop(group).items()
    }
    del values["evaluation"], values["calibration"]
    return {
        **identity,
        **values,
        "calibration.tokens": tokens_hash(windows),
        "calibration.batch_size": config.calibration.batch_size,
        "device": device.type,
        "weights": {
            file.name: [file.stat().st_size, file.stat().st_mtime_ns]
            for file in weight_files(folder)
        },
        "versions": library_versions(),
    }


def _layer_row(layer: LayerRecord) -> dict[str, Any]:
    row = asdict(layer)
    return {"layer": row.pop("name"), **row}


def _summary(layers: list[LayerRecord]) -> dict[str, float | None]:
    sizes = [layer.shape[0] * layer.shape[1] for layer in layers]
    zeros = sum(size * layer.sparsity for size, layer in zip(sizes, layers, strict=True))
    errors = [layer.relative_error for layer in layers if layer.relative_error is not None]
    return {
        "sparsity": zeros / sum(sizes),
        "relative_error": sum(errors) / len(errors) if len(errors) == len(layers) else None,
    }


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of tensors on a GPU, otherwise of the whole process in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage's: that starts from what the process had taken which started this one.
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")
    )


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("config", type=Path)
    arguments.add_argument("--calibration", type=Path, required=True)
    arguments.add_argument("--checkpoint", type=Path, required=True)
    arguments.add_argument("--record", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    config = load(given.config)
    windows, drawn = read_windows(given.calibration)
    partial = given.checkpoint.with_name(f"{given.checkpoint.name}.partial")
    to_do = not given.record.exists()
    # A job that its cluster gave up, with its node, may work on: its successor must not fail.
    with work_folder(partial, wait=True) as work:
        if to_do and given.record.exists() and given.checkpoint.exists():
            verify_manifest(given.checkpoint, maker="rule prune")
            logger.info("another process has finished %s meanwhile", given.checkpoint)
            return
        checkpoint = work / "checkpoint"
        record = prune(config, windows, checkpoint, work)
        facts = {"calibration": drawn, "provenance": provenance(config, started)}
        write_manifest(checkpoint, facts)
        shutil.rmtree(given.checkpoint, ignore_errors=True)
        checkpoint.rename(given.checkpoint)
        write_json(given.record, {**record, **facts})


if __name__ == "__main__":
    run_command(main)
