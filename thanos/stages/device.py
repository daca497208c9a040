"""Where a stage computes."""

import torch

from ..errors import UserError
from .gpu import claim_gpu


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
