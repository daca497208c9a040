"""Where a stage computes, and in what."""

from typing import Any

import torch

from .accelerator import count_devices, device_name, find_accelerator, has_device, is_accelerator
from .errors import UserError
from .workflow.gpus import claim_gpu


def resolve_device(name: str) -> torch.device:
    """`auto` is the first accelerator if there is one, otherwise the CPU.

    Raises:
        UserError: if an accelerator is asked for and not there.
    """
    if name != "cpu" and ":" not in name:
        claim_gpu()
    if name == "auto":
        return find_accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not has_device(device):
        there = find_accelerator()
        raise UserError(
            f"device {name} is not available (this machine has "
            f"{'no accelerator' if there is None else f'{count_devices()} of kind {there}'}); "
            "use device=cpu or device=auto"
        )
    return device


def computing_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that models run in; None for the one that they are stored in.

    On the CPU half precision is slow.
    """
    return None if is_accelerator(device) else torch.float32


def used(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The device and dtype that a stage really computed with, for its record."""
    found = device_name(device)
    name = {} if found is None else {"name": found}
    return {
        "device": device.type,
        **name,
        "dtype": dtype_name(dtype),
        "threads": torch.get_num_threads(),
    }


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
