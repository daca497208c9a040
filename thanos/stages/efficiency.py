"""Measure the latency of a checkpoint beside the dense model's, and its size in the compact form.

python -m thanos.stages.efficiency <spec> [--place …] --checkpoint <folder> --output latency.json
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..accelerator import has_semi_structured_kernels, is_accelerator
from ..artifacts import verify_manifest, write_json
from ..command import run_command, stage_parser
from ..compression.compact import compact_model
from ..compression.compact_folders import narrow_folder
from ..compression.semi_structured import use_semi_structured
from ..device import dtype_name, resolve_device, used
from ..errors import UserError
from ..evaluation.efficiency import (
    count_parameters,
    decoding,
    forward_pass,
    multiplications,
    stored_bytes,
)
from ..evaluation.machine import measure_machine
from ..evaluation.serving import compare_times, measure_serving
from ..identity import LatencySpec, Place
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..models import load_model
from ..models.quiet import quiet
from ..opening import open_dense, window_length
from ..provenance import provenance
from ..pruning import HeadsAndNeurons, Pattern, Structured

_DECODING_STEPS = 16


def measure_latency(spec: LatencySpec, place: Place, checkpoint: Path) -> dict[str, Any]:
    """What `compare` finds for a pruned checkpoint, with the record of its making.

    Raises:
        UserError: the checkpoint is damaged, or the device has no room for both models.
    """
    started, found = time.time(), fingerprint(spec, place)
    verify_manifest(checkpoint, maker="rule prune")
    pruning = spec.pruning
    length = window_length(pruning.model, spec.context, place)
    device = resolve_device(place.device)
    dense = open_dense(pruning.model, place)
    pruned = load_model(checkpoint, "auto", pruning.model.trust_remote_code)
    longest = window_length(pruning.model, max((0, *spec.prompts)) + _DECODING_STEPS, place)
    prompts = dict.fromkeys(min(prompt, longest - _DECODING_STEPS) for prompt in spec.prompts)
    results = compare(
        *(dense, pruned, pruning.pattern, length, device, pruning.skip),
        batches=spec.batches,
        prompts=tuple(prompts),
    )
    made = provenance(started, found, place=place, used=used(device, dense.dtype))
    return {"spec": spec.to_json(), **results, "provenance": made}


def compare(
    dense: PreTrainedModel,
    pruned: PreTrainedModel,
    pattern: Pattern,
    length: int,
    device: torch.device,
    skip: Collection[str] = (),
    batches: Sequence[int] = (),
    prompts: Sequence[int] = (),
) -> dict[str, Any]:
    """Latency of both models, and parameters and bytes of the form that the pruned one runs in.

    Both models are changed: moved to the device, on a CPU widened to float32; the pruned one is
    made compact, or narrow, if its pattern is structured, and uses 2:4 kernels where the device has
    them.

    Args:
        dense: on the CPU as it is stored.
        pruned: likewise, zero-filled.
        pattern: of the pruned model.
        length: tokens of the forward pass; half of them are the prompt of the decoding.
        device: where to measure.
        skip: names or patterns of layers that were left dense.
        batches: of which serving is measured, over all prompts.
        prompts: their lengths in tokens; by default serving is not measured.

    Raises:
        UserError: the device has no room for both models.
    """
    tokens = _tokens(dense, length)
    item_bytes, stored_in = dense.dtype.itemsize, dtype_name(dense.dtype)
    models = {"dense": dense, "pruned": pruned}
    try:
        for model in models.values():
            _prepare(model, device)
        pruned, form = _accelerate(pruned, pattern, skip, tokens)
        models["pruned"] = pruned
        parameters, size = (
            {"dense": count_parameters(dense)},
            {"dense": stored_bytes(dense, item_bytes)},
        )
        if form["form"] in ("compact", "narrow"):
            parameters["compact"] = count_parameters(pruned)
            size["compact"] = stored_bytes(pruned, item_bytes)
        latencies = _latencies(models, tokens.to(device), device)
        if prompts:
            latencies |= _serving(models, batches, prompts, device)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"out of memory on {device}: the dense and the pruned model are measured side by "
            "side; use device=cpu or a device with room for both"
        ) from error
    return {
        **form,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "stored_in": stored_in,
        "computed_in": dtype_name(dense.dtype),
        "parameters": parameters,
        "bytes": size,
        **latencies,
    }


def _accelerate(
    model: PreTrainedModel, pattern: Pattern, skip: Collection[str], tokens: Tensor
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in the fastest form that its pattern and its device allow."""
    zero_filled = _logits(model, tokens)
    form, changed = "zeros", list[str]()
    if isinstance(pattern, HeadsAndNeurons):
        form, (model, changed) = "narrow", _narrowed(model)
    elif isinstance(pattern, Structured):
        form, changed = "compact", compact_model(model, skip)
    elif has_semi_structured_kernels(model.device):
        form, changed = "2:4", use_semi_structured(model)
    difference = (_logits(model, tokens) - zero_filled).abs().max()
    return model, {
        "form": form if changed else "zeros",
        "layers_changed": len(changed),
        "logits_difference": float(difference),
    }


def _narrowed(model: PreTrainedModel) -> tuple[PreTrainedModel, list[str]]:
    """The model that `thanos compact` makes, as transformers opens it, and its smaller layers."""
    with TemporaryDirectory() as folder:
        pruned, narrow = Path(folder, "pruned"), Path(folder, "narrow")
        with quiet():
            model.save_pretrained(pruned)
        narrow_folder(pruned, narrow)
        smaller = load_model(narrow, model.dtype)
        smaller.to(model.device)  # type: ignore[arg-type]  # as in _prepare
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    found = smaller.named_parameters()
    changed = {name.rpartition(".")[0] for name, new in found if new.shape != before[name]}
    return smaller, sorted(changed)


def _serving(
    models: dict[str, PreTrainedModel],
    batches: Sequence[int],
    prompts: Sequence[int],
    device: torch.device,
) -> dict[str, Any]:
    """Over batches and prompts, and what the machine can do at the most."""
    machine = measure_machine(device, models["dense"].dtype)
    return {
        "machine": asdict(machine),
        "serving": measure_serving(models, batches, prompts, _DECODING_STEPS, machine),
    }


def _latencies(
    models: dict[str, PreTrainedModel], tokens: Tensor, device: torch.device
) -> dict[str, Any]:
    length = tokens.shape[1]
    steps = max(1, min(_DECODING_STEPS, length // 4))
    prompt = tokens[:, : max(1, length // 2)]
    forward = {name: forward_pass(model, tokens) for name, model in models.items()}
    decode = {name: decoding(model, prompt, steps) for name, model in models.items()}
    products = {name: multiplications(model) for name, model in models.items()}
    ideal = {"ideal_speedup": products["dense"] / products["pruned"]}
    return {
        "forward": {"tokens": length, **compare_times(forward, 1, device), **ideal},
        "decode": {
            "prompt_tokens": prompt.shape[1],
            "tokens": steps,
            **compare_times(decode, steps, device),
            **ideal,
        },
    }


def _prepare(model: PreTrainedModel, device: torch.device) -> None:
    """Move to the device; on the CPU in float32, because half precision is slow there."""
    if not is_accelerator(device):
        model.float()
    model.to(device)  # type: ignore[arg-type]  # the library's decorator hides the argument


def _tokens(model: PreTrainedModel, length: int) -> Tensor:
    """Random token ids (1, T): what they say does not change how long they take."""
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    return torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens.to(model.device), use_cache=False).logits.float()


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--checkpoint", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    spec = read_spec(LatencySpec, given.spec)
    write_json(given.output, measure_latency(spec, given.place, given.checkpoint))


if __name__ == "__main__":
    run_command(main)
