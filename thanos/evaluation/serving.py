"""What serving costs: prefill and decoding apart, over batches and prompts, and memory at the peak.

Dense and pruned alternate in one process, beside the least time that the machine would take.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from thanos.accelerator import allocated_memory, forget_peak, is_accelerator, peak_memory
from thanos.models.heap import release_freed

from .efficiency import Prepare, alternate, decoding, multiplications, prefill, spread
from .machine import Machine

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # of the resident memory, see proc(5)


def compare_times(
    candidates: Mapping[str, Prepare], divisor: int, device: torch.device
) -> dict[str, Any]:
    """Milliseconds per pass or per step of `dense` and `pruned`, and the speed-up by rounds.

    Args:
        candidates: the two, by name.
        divisor: steps of a pass.
        device: where they run.
    """
    times = alternate(candidates, device)
    values: dict[str, Any] = {"rounds": len(times["dense"])}
    for name, measured in times.items():
        values |= spread(f"{name}_ms", [value / divisor for value in measured])
    pairs = zip(times["dense"], times["pruned"], strict=True)
    return values | spread("speedup", [dense / pruned for dense, pruned in pairs])


def measure_serving(
    models: Mapping[str, PreTrainedModel],
    batches: Sequence[int],
    prompts: Sequence[int],
    steps: int,
    machine: Machine,
) -> dict[str, Any]:
    """For each batch and prompt, by a name such as `8x512`, what serving both models costs.

    Args:
        models: `dense` and `pruned`, on one device.
        batches: sequences that are served together.
        prompts: tokens before the first one that is generated.
        steps: tokens that are generated.
        machine: their device's limits.
    """
    return {
        f"{batch}x{length}": _measured(
            models, _tokens(models["dense"], batch, length), steps, machine
        )
        for batch in batches
        for length in prompts
    }


def _measured(
    models: Mapping[str, PreTrainedModel], tokens: Tensor, steps: int, machine: Machine
) -> dict[str, Any]:
    (batch, length), device = tokens.shape, tokens.device
    parts = {
        "prefill": (1, length, {name: prefill(model, tokens) for name, model in models.items()}),
        "decode": (steps, 1, {name: decoding(m, tokens, steps) for name, m in models.items()}),
    }
    found: dict[str, Any] = {"batch": batch, "prompt_tokens": length, "steps": steps}
    for part, (divisor, at_once, candidates) in parts.items():
        times = compare_times(candidates, divisor, device)
        for name, model in models.items():
            tokens_at_once = batch * at_once
            times[f"{name}_tokens_per_second"] = 1e3 * tokens_at_once / times[f"{name}_ms"]
            times[f"{name}_limit_ms"] = _limit(model, batch, at_once, machine)
        found[part] = times
    for name, model in models.items():
        if (peak := _peak(model, tokens)) is not None:
            found[f"{name}_peak_bytes"] = peak
    return found


def _limit(model: PreTrainedModel, batch: int, tokens: int, machine: Machine) -> float:
    """The least time for the products with weights; attention, norms and the cache come on top."""
    head = model.get_output_embeddings().get_parameter("weight")
    body = multiplications(model) - head.numel()
    products = batch * (tokens * body + head.numel())  # of a prompt only the last token has logits
    return machine.milliseconds(products, (body + head.numel()) * head.element_size())


def _peak(model: PreTrainedModel, tokens: Tensor) -> int | None:
    """Bytes of the model and of what serving a prompt and a token takes besides, at the peak."""
    own = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    serve = decoding(model, tokens, 1)
    if is_accelerator(tokens.device):
        before = allocated_memory(tokens.device)
        forget_peak(tokens.device)
        serve()()
        most = peak_memory(tokens.device)
        return None if before is None or most is None else own + most - before
    release_freed()
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:  # not everywhere allowed
        return None
    before = _resident("VmRSS")
    serve()()
    return own + _resident("VmHWM") - before


def _resident(key: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def _tokens(model: PreTrainedModel, batch: int, length: int) -> Tensor:
    """Random token ids (B, T): what they say does not change how long they take."""
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (batch, length), generator=generator).to(model.device)
