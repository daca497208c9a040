"""Where the hidden states between blocks lie.

On the accelerator while they are few, otherwise on the host, or in mapped files if they are many.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thanos.accelerator import free_memory, is_accelerator, on_host
from thanos.errors import UserError, is_full_disk

logger = logging.getLogger(__name__)

# Of an accelerator's free memory, what hidden states may take; blocks are computed in the rest.
_SHARE = 4


class KeptStates(list[Tensor]):
    """Hidden states by batch, on one device whatever device they come from."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._device = torch.device(device)

    def append(self, states: Tensor) -> None:
        """Add the next batch's."""
        super().append(self._kept(states))

    def __setitem__(self, batch: Any, states: Any) -> None:
        """Replace a batch's."""
        super().__setitem__(batch, self._kept(states))

    def _kept(self, states: Tensor) -> Tensor:
        return states.to(self._device) if is_accelerator(self._device) else on_host(states)


class MappedStates(list[Tensor]):
    """Hidden states by batch, in files that the system may write out when memory is short.

    A file is unlinked as soon as it is mapped: it takes room on the disk until this list is gone,
    and a process that is killed leaves nothing behind.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, states: Tensor) -> None:
        """Add the next batch's."""
        file = self._folder / f"hidden-{len(self):04d}.bin"
        try:
            _reserve(file, states.nbytes)
            mapped = torch.from_file(
                str(file), shared=True, size=states.numel(), dtype=states.dtype
            ).view(states.shape)
        finally:
            file.unlink(missing_ok=True)
        super().append(mapped.copy_(states))

    def __setitem__(self, batch: Any, states: Any) -> None:
        """Overwrite a batch's in place; shape and dtype stay."""
        self[batch].copy_(states)


def _reserve(file: Path, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none later ends the process.

    Raises:
        UserError: there is none.
    """
    with file.open("wb") as stream:
        try:
            if size:
                os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise UserError(
                f"no space left on device for hidden states in {file.parent} ({size:,} bytes more);"
                " free some, or raise hidden_memory to keep more of them in memory"
            ) from error


def hidden_states(
    expected_bytes: int, budget: int, folder: Path, device: torch.device
) -> list[Tensor]:
    """An empty list of hidden states.

    Args:
        expected_bytes: of all that will be kept, in this list and beside it.
        budget: bytes on the host beyond which they are mapped to files.
        folder: of these files.
        device: where the blocks run; states that take a quarter of its free memory stay there.
    """
    free = free_memory(device)
    if free is not None and expected_bytes <= free // _SHARE:
        return KeptStates(device)
    if expected_bytes <= budget:
        return KeptStates()
    logger.info(
        "hidden states, %.1f GiB, lie in mapped files in %s", expected_bytes / 2**30, folder
    )
    return MappedStates(folder)
