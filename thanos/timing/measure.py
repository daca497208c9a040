"""Pruning time and peak memory of single layers, measured side by side in one process."""

import copy
import ctypes
import gc
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor

from thanos.accelerator import (
    allocated_memory,
    device_name,
    forget_peak,
    wait_for,
    widest,
)
from thanos.accelerator import peak_memory as device_peak
from thanos.pruning import (
    METHODS,
    InputStatistics,
    Pattern,
    SemiStructured,
    compose,
    parse_pattern,
    prune_weight,
    required_statistics,
)

from .baselines import batched_thanos, plain_sparsegpt, pseudocode_thanos
from .synthetic import SyntheticLayer, synthetic_layer

BASELINES = {
    "pseudocode-thanos": pseudocode_thanos,
    "batched-thanos": batched_thanos,
    "plain-sparsegpt": plain_sparsegpt,
}
KNOWN_METHODS = (*METHODS, *BASELINES)

_SAMPLING_INTERVAL = 1e-3  # seconds

Argument = TypeVar("Argument")


@dataclass
class Measurement:
    """What was measured of one call.

    Attributes:
        peak_memory: bytes above what was in use before the call.
        result: of the first call.
        seconds: of every repetition, in order.
        processor_seconds: the same, summed over threads: what a busy machine changes little.
    """

    peak_memory: int
    result: Any
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)

    def add(self, times: tuple[float, float]) -> None:
        """Add a repetition's wall-clock and processor seconds."""
        self.seconds.append(times[0])
        self.processor_seconds.append(times[1])

    @property
    def median(self) -> float:
        """Median of the repetitions, in seconds."""
        return statistics.median(self.seconds)


def measure_alternating(
    calls: Mapping[str, Callable[[Argument], Any]],
    argument: Callable[[str], Argument],
    device: torch.device,
    repeats: int,
    patience: float = math.inf,
) -> dict[str, Measurement]:
    """Time several calls in turn, so that a machine that slows down slows them all.

    Args:
        calls: what is measured, by name.
        argument: makes what a call takes, anew for every call and outside the measured time.
        device: waited for before the clock is read.
        repeats: timed calls of each; an untimed one before them warms up and gives the peak memory.
        patience: seconds; a call that has taken longer in all is not repeated any more, one that
            has taken longer to warm up is timed by that.
    """
    measurements = {}
    for name, call in calls.items():
        given = argument(name)
        with peak_memory(device) as peak:
            watch = _Stopwatch(device)
            result = call(given)
            first = watch.read()
        measurements[name] = Measurement(peak.bytes, result)
        if first[0] > patience:
            measurements[name].add(first)
    names = list(calls)
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            if sum(measurements[name].seconds) > patience:
                continue
            given = argument(name)
            watch = _Stopwatch(device)
            calls[name](given)
            measurements[name].add(watch.read())
    return measurements


class _Stopwatch:
    """Wall-clock and processor seconds since its making; the device is waited for at both."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        wait_for(device)
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        wait_for(self._device)
        return time.perf_counter() - self._start[0], time.process_time() - self._start[1]


@dataclass
class Peak:
    """Filled in when `peak_memory` ends."""

    bytes: int = 0


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Largest memory in use inside the context, above that at its start.

    On an accelerator what PyTorch allocated; on the CPU the resident memory, sampled every
    millisecond: very short calls and memory reused from before show less than they took.
    """
    peak = Peak()
    gc.collect()
    if (before := allocated_memory(device)) is not None:
        forget_peak(device)
        yield peak
        wait_for(device)
        peak.bytes = (device_peak(device) or before) - before
        return
    _return_free_memory()
    resident = psutil.Process().memory_info
    before = highest = resident().rss
    done = threading.Event()

    def sample() -> None:
        nonlocal highest
        while not done.wait(_SAMPLING_INTERVAL):
            highest = max(highest, resident().rss)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        highest = max(highest, resident().rss)
        done.set()
        sampler.join()
        peak.bytes = highest - before


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The k of seconds ≈ a · sizeᵏ: slope of the least-squares line through the logarithms.

    Raises:
        ValueError: for fewer than two different sizes.
    """
    slope, _ = statistics.linear_regression(
        [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    )
    return slope


def time_layer(
    shape: tuple[int, int],
    device: torch.device | str = "cpu",
    methods: Sequence[str] = KNOWN_METHODS,
    pattern: str | Pattern = "0.5",
    block_size: int | None = None,
    repeats: int = 5,
    patience: float = math.inf,
) -> list[dict[str, Any]]:
    """Prune one synthetic layer with every method in turn; a row of results for each.

    `seconds` is the median of the repetitions, `peak_memory` in bytes. Every call factorises for
    itself. The relative error is computed afterwards, of all alike.

    Args:
        shape: (c, b).
        device: where the layer lies.
        methods: of `KNOWN_METHODS`.
        pattern: what to remove.
        block_size: B; default 128, for n:m patterns 512.
        repeats: timed calls of each method.
        patience: see `measure_alternating`.

    Raises:
        ValueError: for an unknown method or no repetition.
        PruningError: for a pattern that the layer cannot have.
    """
    unknown = [method for method in methods if method not in KNOWN_METHODS]
    if unknown:
        raise ValueError(f"unknown methods {unknown}; known: {', '.join(KNOWN_METHODS)}")
    if repeats < 1:
        raise ValueError(f"repeats {repeats} must be at least 1")
    device, parsed = torch.device(device), parse_pattern(pattern)
    if block_size is None:
        block_size = 512 if isinstance(parsed, SemiStructured) else 128
    layer = synthetic_layer(shape, device)
    calls = {method: _call(method, layer.W, parsed, block_size) for method in methods}
    measured = measure_alternating(
        calls, partial(_inputs, layer, parsed), device, repeats, patience
    )
    return [
        {
            "method": method,
            "rows": shape[0],
            "columns": shape[1],
            "pattern": str(parsed),
            "block_size": block_size,
            "seconds": measurement.median,
            "seconds_min": min(measurement.seconds),
            "seconds_max": max(measurement.seconds),
            "processor_seconds": statistics.median(measurement.processor_seconds),
            "repeats": len(measurement.seconds),
            "peak_memory": measurement.peak_memory,
            "relative_error": _relative_error(layer, measurement.result),
            "sparsity": float((measurement.result == 0).float().mean()),
            "device": _name(device),
            "threads": torch.get_num_threads(),
        }
        for method, measurement in measured.items()
    ]


def _call(
    method: str, W: Tensor, pattern: Pattern, block_size: int
) -> Callable[[InputStatistics], Tensor]:
    if method in BASELINES:
        baseline = BASELINES[method]
        return lambda inputs: baseline(W, inputs.gram, pattern, block_size)
    options: dict[str, Any] = {"block_size": block_size, "measure_error": False}
    return lambda inputs: prune_weight(W, inputs, method, pattern, **options).weight


def _inputs(layer: SyntheticLayer, pattern: Pattern, method: str) -> InputStatistics:
    """A copy of what the method needs to know of the inputs, and nothing more."""
    if method in BASELINES or required_statistics(compose(method, pattern)) == "gram":
        return copy.deepcopy(layer.inputs)
    return copy.deepcopy(layer.diagonal)


def _relative_error(layer: SyntheticLayer, pruned: Tensor) -> float:
    W, G, D = layer.W, layer.inputs.gram, layer.W - pruned
    lost, total = ((each @ G * each).sum(dtype=widest(G.device)) for each in (D, W))
    return float(lost / total)


def _name(device: torch.device) -> str:
    return device_name(device) or str(device)


def _return_free_memory() -> None:
    """Give freed memory back to the system (glibc), so that using it again shows."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
