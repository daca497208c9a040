"""Where a stage computes, and in what."""

from typing import Any

import torch

from .errors import UserError
from .workflow.gpus import claim_gpu


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device if there is one, otherwise the CPU.

    Raises:
        UserError: if a CUDA device is asked for and not there.
    """
    if name in ("auto", "cuda"):
        claim_gpu()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name} is not available ({torch.cuda.device_count()} CUDA devices); "
            "use device=cpu or device=auto"
        )
    return device


def computing_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype that models run in; None for the one that they are stored in.

    On the CPU half precision is slow.
    """
    return torch.float32 if device.type == "cpu" else None


def used(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The device and dtype that a stage really computed with, for its record."""
    name = {"name": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "device": device.type,
        **name,
        "dtype": dtype_name(dtype),
        "threads": torch.get_num_threads(),
    }


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
