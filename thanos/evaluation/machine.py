"""What a machine can do at the most, measured: products of numbers and bytes read, per second."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from thanos.accelerator import is_accelerator, wait_for

_SIDE = 2048  # of the matrices that are multiplied: large enough for the best kernels
_SIDE_ON_ACCELERATOR = 8192
_BYTES = 512 * 2**20  # read at a time: more than any cache holds
_REPEATS = 5


@dataclass(frozen=True)
class Machine:
    """The limits of a device, with the threads that it is given.

    Attributes:
        products: multiplications, each with an addition, per second.
        bytes: read from memory, per second.
    """

    products: float
    bytes: float

    def milliseconds(self, products: float, read: float) -> float:
        """The least time that so many products of weights, of so many bytes, can take."""
        return 1e3 * max(products / self.products, read / self.bytes)


@torch.inference_mode()
def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The best of some large matrix products, and of some products of a matrix and a vector.

    Args:
        device: to measure.
        dtype: in which models compute there.
    """
    side = _SIDE_ON_ACCELERATOR if is_accelerator(device) else _SIDE
    square = torch.ones(side, side, dtype=dtype, device=device)
    out = torch.empty_like(square)
    rows = _BYTES // (4096 * dtype.itemsize)
    tall = torch.ones(rows, 4096, dtype=dtype, device=device)
    vector = torch.ones(4096, dtype=dtype, device=device)
    return Machine(
        side**3 / _best(lambda: torch.mm(square, square, out=out), device),
        tall.nbytes / _best(lambda: torch.mv(tall, vector), device),
    )


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some repeats."""
    times = []
    for _ in range(_REPEATS + 1):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times)
