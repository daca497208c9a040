"""Prune a model and write the checkpoint and the record of every layer.

    python -m thanos.stages.prune config.yaml --calibration <folder> --checkpoint <folder> \\
        --record pruning.json
"""

import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..artifacts import atomic_folder, write_json, write_manifest
from ..config import Config, load
from ..models import LayerRecord, prune_model, save_checkpoint
from ..provenance import provenance
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
from .opening import open_dense, open_tokenizer


def layer_pruner(config: Config) -> Callable[[torch.Tensor, InputStatistics | None], PruningResult]:
    """The run's pruning of one layer as a function of its weight and input statistics."""
    method = config.method

    def prune_layer(weight: torch.Tensor, statistics: InputStatistics | None) -> PruningResult:
        return prune_weight(
            weight,
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
        )

    return prune_layer


def prune(config: Config, model: PreTrainedModel, windows: torch.Tensor) -> dict[str, Any]:
    """Prune `model` in place and return the record that becomes `pruning.json`.

    Args:
        config: of the run, not dense.
        model: on the CPU; its blocks visit the device one by one.
        windows: (n, T) calibration token ids.
    """
    method = config.method
    composition = compose(
        method.name, parse_pattern(config.pattern), method.metric, method.scope, method.update
    )
    needed = required_statistics(composition, config.outlier_fraction, method.refine_steps)
    device = resolve_device(config.device)
    started = time.perf_counter()
    layers = prune_model(
        model,
        windows,
        layer_pruner(config),
        statistics="gram" if config.layer_errors else needed,
        batch_size=config.calibration.batch_size,
        device=device,
        statistics_dtype=getattr(torch, config.precision),
        skip=config.model.skip,
    )
    return {
        **_summary(layers),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": _peak_memory(device),
        "layers": [_layer_row(layer) for layer in layers],
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


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
    windows = read_windows(given.calibration)
    model = open_dense(config)
    record = prune(config, model, windows)
    facts = {"provenance": provenance(config, started)}
    with atomic_folder(given.checkpoint) as temporary:
        save_checkpoint(model, open_tokenizer(config), temporary)
        write_manifest(temporary, facts)
    write_json(given.record, {**record, **facts})


if __name__ == "__main__":
    run_command(main)
