"""Prune a model and write the checkpoint and the record of every layer.

    python -m thanos.stages.prune <spec> [--place …] [--calibration <folder>] \\
        --checkpoint <folder> --record pruning.json

Finished blocks lie in <checkpoint>.partial/ until all is written; if the command is interrupted or
killed, the same command goes on from there.
"""

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..artifacts import verify_manifest, write_json, write_manifest
from ..command import run_command, stage_parser
from ..content import remember_moved
from ..device import computing_dtype, resolve_device, used
from ..errors import UserError
from ..identity import Place, PruningSpec
from ..identity.fingerprints import Fingerprint, fingerprint
from ..identity.spec import read_spec
from ..models import (
    BlockSource,
    FinishedBlocks,
    LayerRecord,
    PruneLayer,
    StreamedBlocks,
    check_copied,
    copy_checkpoint,
    hidden_states,
    linear_layers,
    prune_model,
    work_folder,
)
from ..models.dense import refuse
from ..models.sequential import Statistics
from ..models.source import PrunedBlocks
from ..opening import dense_folder, open_tokenizer
from ..provenance import provenance
from ..pruning import (
    InputStatistics,
    PruningError,
    PruningResult,
    check_shape,
    prune_weight,
    required_statistics,
)
from ..workflow.resources import plan_pruning
from .calibrate import read_windows

logger = logging.getLogger(__name__)


def prune(
    spec: PruningSpec, place: Place, calibration: Path | None, checkpoint: Path, work: Path
) -> dict[str, Any]:
    """Prune a model block by block and return the record that becomes `pruning.json`.

    Args:
        spec: of the pruned model.
        place: where it is computed.
        calibration: folder of `thanos.stages.calibrate`; None if the spec has no calibration.
        checkpoint: the folder to write; its manifest is written last.
        work: where finished blocks are kept; those of an earlier attempt are not done again.
    """
    began, found = time.time(), fingerprint(spec, place)
    windows, drawn = (None, {}) if calibration is None else read_windows(calibration)
    device = resolve_device(place.device)
    folder = dense_folder(spec.model, place)
    open_tokenizer(spec.model, place)  # it goes with the pruned model; a damaged one is known now
    check_copied(folder)
    plan = plan_pruning(spec, place, folder, on_device=device.type != "cpu")
    logger.info("expected peak memory: %s", plan)
    started = time.perf_counter()
    dtype = computing_dtype(device)
    finished = FinishedBlocks(work, _causes(spec, found, drawn, device, dtype))
    resumed = len(finished)
    model = StreamedBlocks(
        folder, dtype=dtype, trust_remote_code=spec.model.trust_remote_code, finished=finished
    )
    check_layers(spec, model)
    size = model.hidden_bytes(0 if windows is None else windows.numel())
    size *= 2 if spec.correction else 1
    room = partial(hidden_states, size, place.hidden_budget, work)
    layers = prune_blocks(
        spec,
        place,
        model,
        windows,
        device=device,
        storage_dtype=model.storage_dtype,
        done=tuple(finished.records),
        hidden=room(),
        dense_hidden=room() if spec.correction else None,
    )
    facts = {
        "spec": spec.to_json(),
        "calibration": drawn,
        "provenance": provenance(
            began, found, place=place, used=used(device, dtype or model.storage_dtype)
        ),
    }
    manifest = _write_checkpoint(folder, finished, facts, work, checkpoint)
    return {
        **summary(layers),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak_memory(device),
        "memory_plan": asdict(plan),
        "resumed_blocks": resumed,
        "weights": {
            name: file["sha256"]
            for name, file in manifest["files"].items()
            if name.endswith(".safetensors")
        },
        "layers": [layer_row(layer) for layer in layers],
        **facts,
    }


def check_layers(spec: PruningSpec, model: BlockSource) -> None:
    """Check that every layer can have the pattern, before the first one is pruned.

    Raises:
        UserError: some cannot; the message names them.
    """
    faults, fitting = {}, 0
    for block, block_name in zip(model.blocks.modules, model.blocks.names, strict=True):
        for name, layer in linear_layers(block, block_name, spec.skip).items():
            try:
                check_shape(*layer.shape, spec.pattern, spec.outlier_fraction)
                fitting += 1
            except PruningError as error:
                faults[name] = f": {error}"
    if faults and not fitting:  # leaving all of them dense is no way out
        raise UserError("".join(next(iter(faults.items()))))
    refuse(faults, model.blocks.names, spec.skip)


def layer_pruner(
    spec: PruningSpec, memory_budget: int | None, storage_dtype: torch.dtype
) -> Callable[[torch.Tensor, InputStatistics | None], PruningResult]:
    """The pruning of one layer as a function of its weight and input statistics.

    The result is rounded to what the checkpoint stores, whatever precision the blocks run in, so
    that later blocks are calibrated on the very weights that are written.
    """
    options: dict[str, Any] = {
        "block_size": spec.block_size,
        "outlier_fraction": spec.outlier_fraction,
        "refine_steps": spec.refine_steps,
        "alternation": spec.alternation,
        "correction": spec.correction,
        "measure_error": spec.layer_errors,
    }
    for key in ("damping", "outlier_score"):  # used by some methods only
        if (value := getattr(spec, key)) is not None:
            options[key] = value

    def prune_layer(
        weight: torch.Tensor, statistics: InputStatistics | None, **given: Any
    ) -> PruningResult:
        return prune_weight(
            weight.to(storage_dtype),
            statistics,
            spec.method,
            spec.pattern,
            dtype=getattr(torch, spec.precision),
            memory_budget=memory_budget,
            **options,
            **given,
        )

    return prune_layer


def data_free_pruner(
    spec: PruningSpec, needed: Statistics, storage_dtype: torch.dtype
) -> PruneLayer | None:
    """How experts that saw too few tokens are pruned; None if that is an error.

    Args:
        spec: of the pruned model.
        needed: the statistics that its method needs; without any, no expert saw too few.
        storage_dtype: what the checkpoint stores.
    """
    if needed != "none" and spec.rare_experts == "error":
        return None

    def prune_layer(weight: torch.Tensor, _: InputStatistics | None, **given: Any) -> PruningResult:
        # Outlier rows are chosen by the inputs, so there are none.
        return prune_weight(weight.to(storage_dtype), None, "magnitude", spec.pattern, **given)

    return prune_layer


def prune_blocks(
    spec: PruningSpec,
    place: Place,
    source: PrunedBlocks,
    windows: torch.Tensor | None,
    *,
    device: torch.device,
    storage_dtype: torch.dtype,
    done: Sequence[Sequence[LayerRecord]] = (),
    hidden: list[torch.Tensor] | None = None,
    dense_hidden: list[torch.Tensor] | None = None,
) -> list[LayerRecord]:
    """Prune a model's blocks, streamed or loaded, as a spec says; see `prune_model`.

    Args:
        spec: of the pruned model; its model is wherever `source` has it from.
        place: where it is computed.
        source: of the blocks.
        windows: (n, T) token ids; None if the spec has no calibration.
        device: where blocks run and are pruned.
        storage_dtype: what pruned weights are rounded to.
        done: records of the first blocks, which the source hands out pruned.
        hidden: where hidden states are kept.
        dense_hidden: where those of the dense model are kept, if they are wanted.
    """
    needed = required_statistics(
        *(spec.method, spec.outlier_fraction, spec.refine_steps),
        *(spec.outlier_score, spec.correction),
    )
    return prune_model(
        source,
        windows,
        layer_pruner(spec, place.memory_budget, storage_dtype),
        statistics="gram" if spec.layer_errors else needed,
        batch_size=place.calibration_batch,
        device=device,
        statistics_dtype=getattr(torch, spec.precision),
        skip=spec.skip,
        data_free=data_free_pruner(spec, needed, storage_dtype),
        order="sublayer" if spec.order == "sublayer" else "block",
        correction=spec.correction > 0,
        masks=_masks(spec, place, source),
        done=done,
        hidden=hidden,
        dense_hidden=dense_hidden,
    )


def _masks(spec: PruningSpec, place: Place, source: BlockSource) -> StreamedBlocks | None:
    """The pruned model whose zeros are removed.

    Raises:
        UserError: its layers are not those of the model to prune.
    """
    if spec.mask is None:
        return None
    masks = StreamedBlocks(dense_folder(spec.mask, place))
    layers, others = (_shapes(each, spec.skip) for each in (source, masks))
    if different := sorted(layers.items() ^ others.items()):
        raise UserError(
            f"the mask in {spec.mask.path} is of another model: layer {different[0][0]} is not the "
            "same in both"
        )
    return masks


def _shapes(model: BlockSource, skip: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    return {
        name: layer.shape
        for index, block in enumerate(model.blocks.modules)
        for name, layer in linear_layers(block, model.blocks.name_of(index), skip).items()
    }


def _causes(
    spec: PruningSpec,
    found: Fingerprint,
    drawn: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
) -> dict[str, Any]:
    """All that finished blocks depend on, by names for a message; no part of it is the place."""
    causes: dict[str, Any] = dict(spec.identity())
    for kind, values in asdict(found).items():
        causes |= {f"{kind}.{name}": value for name, value in values.items()}
    return {**causes, **drawn, "device": device.type, "dtype": str(dtype)}


def _write_checkpoint(
    source: Path,
    finished: FinishedBlocks,
    facts: dict[str, Any],
    work: Path,
    checkpoint: Path,
) -> dict[str, Any]:
    """Write the whole folder in place of an older one, and return its manifest."""
    temporary = work / "checkpoint"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    copy_checkpoint(source, finished.tensors, temporary)
    manifest = write_manifest(temporary, facts)
    shutil.rmtree(checkpoint, ignore_errors=True)
    temporary.rename(checkpoint)
    for name, file in manifest["files"].items():
        remember_moved(checkpoint / name, file["sha256"])
    return manifest


def layer_row(layer: LayerRecord) -> dict[str, Any]:
    """What `pruning.json` says of a layer."""
    row = asdict(layer)
    return {"layer": row.pop("name"), **row}


def summary(layers: list[LayerRecord]) -> dict[str, float | None]:
    """What `pruning.json` says of all layers: sparsity, and mean relative error where known."""
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
    arguments = stage_parser(__doc__)
    arguments.add_argument("--calibration", type=Path, nargs="?")
    arguments.add_argument("--checkpoint", type=Path, required=True)
    arguments.add_argument("--record", type=Path, required=True)
    given = arguments.parse_args()
    spec = read_spec(PruningSpec, given.spec)
    partial = given.checkpoint.with_name(f"{given.checkpoint.name}.partial")
    to_do = not given.record.exists()
    # A job that its cluster gave up, with its node, may work on: its successor must not fail.
    with work_folder(partial, wait=True) as work:
        if to_do and given.record.exists() and given.checkpoint.exists():
            verify_manifest(given.checkpoint, maker="rule prune")
            logger.info("another process has finished %s meanwhile", given.checkpoint)
            return
        record = prune(spec, given.place, given.calibration, given.checkpoint, work)
        write_json(given.record, record)


if __name__ == "__main__":
    run_command(main)
