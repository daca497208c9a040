"""Train a pruned model on text, every zero of it kept, and write the checkpoint and the record.

    python -m thanos.stages.recover <spec> [--place …] [--checkpoint <folder>] --text <folder> \\
        --output <folder> --record recovery.json

`--checkpoint` is the pruned model; without it the dense one is trained, for what the training
brings by itself. States of the training lie in <output>.partial/ until all is written; if the
command is interrupted or killed, the same command goes on from the last one.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, set_seed

from ..accelerator import forget_peak, peak_memory
from ..artifacts import verify_manifest, write_json
from ..command import run_command, stage_parser
from ..device import resolve_device, used
from ..identity import Place, RecoverySpec
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..models import (
    StreamedBlocks,
    check_copied,
    copied,
    load_model,
    publish,
    weights_of,
    work_folder,
)
from ..models.location import weight_files
from ..models.safetensors_layout import StoredTensor, read_layout
from ..models.shards import stored_tensors
from ..models.stored_weights import match_names, torch_dtype
from ..opening import dense_folder
from ..provenance import provenance
from ..pruning.patterns import SemiStructured
from ..recovery.adapters import with_adapters
from ..recovery.training import Course, Student, in_half_precision, train
from ..recovery.zeros import LayerZeros, Zeros, compare_zeros, summary
from .calibrate import read_windows
from .prune import host_peak


def recover(
    spec: RecoverySpec,
    place: Place,
    pruned: Path | None,
    text: Path,
    checkpoint: Path,
    work: Path,
) -> dict[str, Any]:
    """Train a model and return the record that becomes `recovery.json`.

    Args:
        spec: of the trained model.
        place: where it is computed.
        pruned: checkpoint of the pruned model; None for the dense one.
        text: folder of `thanos.stages.calibrate`: the windows to train on.
        checkpoint: the folder to write; its manifest is written last.
        work: where states of the training are kept; one of an earlier attempt is gone on from.
    """
    began, started, found = time.time(), time.perf_counter(), fingerprint(spec, place)
    if pruned is not None:
        before = weights_of(verify_manifest(pruned, maker="rule prune"))
        found.inputs.update({f"pruned {name}": sha256 for name, sha256 in before.items()})
    folder = pruned or dense_folder(spec.base, place)
    check_copied(folder)
    windows, drawn = read_windows(text)
    device = resolve_device(place.device)
    forget_peak(device)
    set_seed(spec.text.seed)  # of the adapters; the Trainer sets it again
    model, trained, after_step = _opened(spec, folder, device)
    machine = used(device, model.dtype)
    student = Student(trained, _teacher(spec, place, device), spec.distillation)
    counts = [p.numel() for p in student.parameters() if p.requires_grad]
    course = Course(
        spec.steps,
        spec.learning_rate,
        spec.batch_size,
        place.recovery_batch or spec.batch_size,
        spec.text.seed,
    )
    where = {"device": machine["device"], "dtype": machine["dtype"]}
    causes = {**found.causes(spec), **drawn, **where}
    losses, resumed = train(
        student, windows, course, work, causes, device=device, after_step=after_step
    )
    if spec.weights == "lora":
        model = trained.merge_and_unload()
    tensors = _as_stored(model, folder, work / "trained.safetensors")
    temporary = copied(folder, tensors, work)
    layers = _compared(spec, folder, temporary)
    facts = {
        "spec": spec.to_json(),
        "text": drawn,
        "provenance": provenance(began, found, place=place, used=machine),
    }
    manifest = publish(temporary, facts, checkpoint)
    return {
        **summary(layers),
        "losses": losses,
        "trained_parameters": sum(counts),
        "tokens": windows.numel(),
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": peak_memory(device) or host_peak(),
        "resumed_step": resumed,
        "weights": weights_of(manifest),
        "layers": [asdict(layer) for layer in layers],
        **facts,
    }


def _opened(
    spec: RecoverySpec, folder: Path, device: torch.device
) -> tuple[Any, Any, Callable[[], None] | None]:
    """The model in `folder`, what of it is trained, and what keeps its zeros after a step."""
    # Steps of the weights themselves are too small for half precision; adapters leave them alone.
    dtype = torch.float32 if spec.weights == "all" else _dtype(device)
    model: Any = load_model(folder, dtype, spec.base.trust_remote_code)
    model.to(device)
    if spec.weights == "all":
        return model, model.requires_grad_(True), Zeros(model, spec.skip).restore
    assert spec.rank is not None
    return model, with_adapters(model, spec.rank, spec.skip), None


def _compared(spec: RecoverySpec, before: Path, after: Path) -> list[LayerZeros]:
    """Every layer's zeros in both checkpoints.

    Raises:
        RuntimeError: one is filled.
    """
    pruning, group = spec.pruning, None
    if pruning is not None and isinstance(pruning.pattern, SemiStructured):
        # Of mixed n:m every layer has an n of its own.
        uniform = pruning.allocation == "uniform"
        group = (pruning.pattern.n, pruning.pattern.m) if uniform else None
    opened = partial(StreamedBlocks, trust_remote_code=spec.base.trust_remote_code)
    return compare_zeros(opened(before), opened(after), spec.skip, group)


def _dtype(device: torch.device) -> torch.dtype | Literal["auto"]:
    """Of weights that are not trained: as they are stored, where a device computes in that."""
    return "auto" if in_half_precision(device) else torch.float32


def _teacher(spec: RecoverySpec, place: Place, device: torch.device) -> PreTrainedModel | None:
    """The dense model, if its predictions are wanted."""
    if not spec.distillation:
        return None
    folder = dense_folder(spec.base, place)
    teacher: Any = load_model(folder, _dtype(device), spec.base.trust_remote_code)
    frozen: PreTrainedModel = teacher.to(device).requires_grad_(False)
    return frozen


def _as_stored(model: PreTrainedModel, folder: Path, file: Path) -> dict[str, StoredTensor]:
    """Write a model's weights under the names and in the formats that its folder has them in."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    tensors = {
        piece.stored.name: weights[name].detach()[piece.place].to("cpu", torch_dtype(piece.stored))
        for name, pieces in match_names(model, stored_tensors(weight_files(folder)), folder).items()
        for piece in pieces
        if name in weights
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return read_layout(file)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--checkpoint", type=Path, nargs="?")
    arguments.add_argument("--text", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--record", type=Path, required=True)
    given = arguments.parse_args()
    spec = read_spec(RecoverySpec, given.spec)
    with work_folder(given.output.with_name(f"{given.output.name}.partial"), wait=True) as work:
        record = recover(spec, given.place, given.checkpoint, given.text, given.output, work)
        write_json(given.record, record)


if __name__ == "__main__":
    run_command(main)
