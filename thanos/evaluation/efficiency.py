"""Speed of a model before and after pruning, measured side by side in one process."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thanos.accelerator import wait_for
from thanos.compression.compact_linear import CompactLinear
from thanos.compression.semi_structured import is_semi_structured

_WARM_UP_ROUNDS = 2
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 25
_SECONDS = 10.0  # of measuring; reached by models that take long for a pass

Work = Callable[[], None]
Prepare = Callable[[], Work]  # what is not timed, and returns what is


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """The spread of some values."""
        return cls(statistics.median(values), min(values), max(values))


def spread(name: str, values: list[float]) -> dict[str, float]:
    """The spread of some values under a name, `<name>_low` and `<name>_high`."""
    found = Spread.of(values)
    return {name: found.median, f"{name}_low": found.low, f"{name}_high": found.high}


def count_parameters(model: nn.Module) -> int:
    """A model's parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def stored_bytes(model: nn.Module, item_bytes: int) -> int:
    """Bytes of a model: its parameters in the stored precision, and a compact one's indices."""
    indices = sum(
        index.nbytes
        for module in model.modules()
        if isinstance(module, CompactLinear)
        for index in module.buffers()
    )
    return count_parameters(model) * item_bytes + indices


def multiplications(model: nn.Module) -> float:
    """Multiplications per token in a model's linear layers, head included, attention not."""
    return sum(_multiplications(module) for module in model.modules())


def alternate(candidates: Mapping[str, Prepare], device: torch.device) -> dict[str, list[float]]:
    """Time candidates in turn, in milliseconds; the i-th times of all belong to one round.

    The order is reversed from round to round, so that a machine that slows down or speeds up
    favours none.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    started = time.perf_counter()
    round_number = -_WARM_UP_ROUNDS
    while round_number < _MOST_ROUNDS:
        names = list(candidates) if round_number % 2 == 0 else list(candidates)[::-1]
        for name in names:
            elapsed = _timed(candidates[name](), device)
            if round_number >= 0:
                times[name].append(elapsed)
        round_number += 1
        if round_number >= _FEWEST_ROUNDS and time.perf_counter() - started > _SECONDS:
            break
    return times


def forward_pass(model: PreTrainedModel, tokens: Tensor) -> Prepare:
    """One pass over tokens (B, T) that gives the logits of all of them."""

    @torch.inference_mode()
    def work() -> None:
        model(input_ids=tokens, use_cache=False)

    return lambda: work


def prefill(model: PreTrainedModel, tokens: Tensor) -> Prepare:
    """One pass over prompts (B, T) that fills the cache and gives the logits of the last tokens."""
    few = _last_logits(model)

    @torch.inference_mode()
    def work() -> None:
        model(input_ids=tokens, use_cache=True, **few)

    return lambda: work


def decoding(model: PreTrainedModel, tokens: Tensor, steps: int) -> Prepare:
    """One token after the other, `steps` of them, after tokens (B, T) whose pass is not timed."""

    few = _last_logits(model)

    @torch.inference_mode()
    def prepare() -> Work:
        cache = model(input_ids=tokens, use_cache=True, **few).past_key_values

        @torch.inference_mode()
        def work() -> None:
            for _ in range(steps):
                model(input_ids=tokens[:, -1:], past_key_values=cache, use_cache=True)

        return work

    return prepare


def _last_logits(model: PreTrainedModel) -> dict[str, Any]:
    """What asks a model for the logits of the last token only, where it can be asked."""
    known = signature(model.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}


def _multiplications(module: nn.Module) -> float:
    if isinstance(module, CompactLinear):
        further = module.outliers.weight.numel() if module.outliers is not None else 0
        return module.weight.numel() + further
    if isinstance(module, nn.Linear | Conv1D):
        weight = module.get_parameter("weight")
        return weight.numel() / 2 if is_semi_structured(weight) else weight.numel()
    return 0


def _timed(work: Work, device: torch.device) -> float:
    wait_for(device)
    started = time.perf_counter()
    work()
    wait_for(device)
    return 1e3 * (time.perf_counter() - started)
