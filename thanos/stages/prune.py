"""Prune a model and write the checkpoint and the record of every layer.

    python -m thanos.stages.prune <spec> [--place …] [--calibration <folder>] \\
        --checkpoint <folder> --record pruning.json

Finished blocks lie in <checkpoint>.partial/ until all is written; if the command is interrupted or
killed, the same command goes on from there.
"""

import logging
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..accelerator import forget_peak, is_accelerator, peak_memory
from ..artifacts import verify_manifest, write_json
from ..command import run_command, stage_parser
from ..device import computing_dtype, resolve_device, used
from ..identity import Place, PruningSpec
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..models import (
    FinishedBlocks,
    LayerRecord,
    StreamedBlocks,
    check_copied,
    copied,
    hidden_states,
    publish,
    weights_of,
    work_folder,
)
from ..models.parts import part, timed_parts
from ..opening import dense_folder, open_tokenizer
from ..provenance import provenance
from ..pruner import check_layers, layer_row, prune_blocks, summary
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
    plan = plan_pruning(spec, place, folder, on_device=is_accelerator(device))
    logger.info("expected peak memory: %s", plan)
    forget_peak(device)
    dtype = computing_dtype(device)
    with timed_parts(device) as seconds:
        where = {"device": device.type, "dtype": str(dtype)}
        finished = FinishedBlocks(work, {**found.causes(spec), **drawn, **where})
        resumed = len(finished)
        layers, stored = _prune(spec, place, windows, folder, finished, device, dtype)
        facts = {
            "spec": spec.to_json(),
            "calibration": drawn,
            "provenance": provenance(began, found, place=place, used=used(device, dtype or stored)),
        }
        with part("write"):
            manifest = publish(copied(folder, finished.tensors, work), facts, checkpoint)
    return {
        **summary(layers),
        "seconds": sum(seconds.values()),
        "seconds_by_part": seconds,
        "peak_memory_bytes": peak_memory(device) or host_peak(),
        "memory_plan": asdict(plan),
        "resumed_blocks": resumed,
        "weights": weights_of(manifest),
        "layers": [layer_row(layer) for layer in layers],
        **facts,
    }


def _prune(
    spec: PruningSpec,
    place: Place,
    windows: torch.Tensor | None,
    folder: Path,
    finished: FinishedBlocks,
    device: torch.device,
    dtype: torch.dtype | None,
) -> tuple[list[LayerRecord], torch.dtype]:
    """Records of all layers, and what the model's weights are stored in; the blocks are kept."""
    opened = partial(
        StreamedBlocks, folder, dtype=dtype, trust_remote_code=spec.model.trust_remote_code
    )
    with opened(finished=finished, overlap=place.overlap) as model:
        check_layers(spec, model)
        size = model.hidden_bytes(0 if windows is None else windows.numel())
        size *= spec.streams
        room = partial(hidden_states, size, place.hidden_budget, finished.folder, device)
        layers = prune_blocks(
            *(spec, place, model, windows, opened()),
            device=device,
            storage_dtype=model.storage_dtype,
            done=tuple(finished.records),
            hidden=room(),
            dense_hidden=room() if spec.streams > 1 else None,
        )
        return layers, model.storage_dtype


def host_peak() -> int:
    """Bytes of the whole process in memory at the peak."""
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
