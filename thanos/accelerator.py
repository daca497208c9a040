"""Accelerators, whoever made them: CUDA, ROCm, XPU, MPS and what else torch has a backend for.

The only module that asks whether a device is one, what it can do and how much memory it has.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

_SEMI_STRUCTURED_FROM = (8, 0)  # CUDA's compute capability: Ampere
_WITHOUT_FLOAT64 = {"mps"}

Answer = TypeVar("Answer")


def find_accelerator() -> torch.device | None:
    """The kind of accelerator that this machine has, without an index; None if it has none."""
    return torch.accelerator.current_accelerator(check_available=True)


def is_accelerator(device: torch.device) -> bool:
    """Whether a device is anything but the host, which need not wait for what it asks for."""
    return device.type not in ("cpu", "meta")


def has_device(device: torch.device) -> bool:
    """Whether this machine has the device."""
    if not is_accelerator(device):
        return True
    found = find_accelerator()
    same = found is not None and found.type == device.type
    return same and (device.index or 0) < count_devices()


def count_devices() -> int:
    """How many accelerators this machine has."""
    return torch.accelerator.device_count()


def device_name(device: torch.device) -> str | None:
    """What its maker calls an accelerator; None for the host, and where torch does not know."""
    if not is_accelerator(device):
        return None
    ask = getattr(torch.get_device_module(device), "get_device_name", None)
    return None if ask is None else str(ask(device))


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked for; the host always has."""
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


def widest(device: torch.device) -> torch.dtype:
    """The most precise dtype that a device computes in."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def read(*values: Tensor) -> list[float]:
    """Numbers, tensors () of any dtype on one device, for a single wait; exact below 2⁵³."""
    device = values[0].device
    if not is_accelerator(device) or widest(device) != torch.float64:
        return [value.item() for value in values]
    found: list[float] = torch.stack([value.double() for value in values]).tolist()
    return found


def on_host(x: Tensor) -> Tensor:
    """A tensor on the host; it is, or a copy in memory that the device's own engines reach.

    Into ordinary memory, new every time, an H200 copies at 1.6 GB/s, into such at 55.
    """
    if not is_accelerator(x.device):
        return x
    try:
        copied = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    except RuntimeError:  # NotImplementedError among them: the backend has no such memory
        copied = torch.empty(x.shape, dtype=x.dtype)
    return copied.copy_(x)


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors may still take on an accelerator; see `_told` for None."""

    def ask(device: torch.device) -> int:
        free, _ = torch.accelerator.get_memory_info(device)
        kept = torch.accelerator.memory_reserved(device)  # by torch, for tensors to come
        return free + kept - torch.accelerator.memory_allocated(device)

    return _told(ask, device)


def allocated_memory(device: torch.device) -> int | None:
    """Bytes of the tensors on an accelerator; see `_told` for None."""
    return _told(torch.accelerator.memory_allocated, device)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes of tensors on an accelerator so far; see `_told` for None."""
    return _told(torch.accelerator.max_memory_allocated, device)


def forget_peak(device: torch.device) -> None:
    """Let `peak_memory` count from now on."""
    _told(torch.accelerator.reset_peak_memory_stats, device)


def give_back_memory(device: torch.device) -> None:
    """Let other processes have what torch keeps on an accelerator for tensors to come."""
    if is_accelerator(device):
        torch.accelerator.empty_cache()


def busy_share(device: torch.device) -> float | None:
    """Of the last moment, as the driver counts it, the share in which the accelerator computed.

    None on the host, and where nobody tells: CUDA needs `nvidia-ml-py`.
    """
    if not is_accelerator(device):
        return None
    ask = getattr(torch.get_device_module(device), "utilization", None)
    try:
        return None if ask is None else ask(device) / 100
    except (ImportError, RuntimeError):
        return None


def has_semi_structured_kernels(device: torch.device) -> bool:
    """Whether the device multiplies 2:4 weights faster than dense ones."""
    return (
        device.type == "cuda"
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= _SEMI_STRUCTURED_FROM
    )


def _told(ask: Callable[[torch.device], Answer], device: torch.device) -> Answer | None:
    """An accelerator's answer; None on the host, and where a backend keeps no such account.

    Those without an account of their own share the host's memory.
    """
    if not is_accelerator(device):
        return None
    try:
        return ask(device)
    except RuntimeError:  # NotImplementedError among them
        return None
