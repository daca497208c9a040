"""Where the hidden states between blocks lie: on the host, or in mapped files if they are many."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class HostStates(list[Tensor]):
    """Hidden states by batch, on the host whatever device they come from."""

    def append(self, states: Tensor) -> None:
        """Add the next batch's."""
        super().append(states.to("cpu"))

    def __setitem__(self, batch: Any, states: Any) -> None:
        """Replace a batch's."""
        super().__setitem__(batch, states.to("cpu"))


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
        mapped = torch.from_file(
            str(file), shared=True, size=states.numel(), dtype=states.dtype
        ).view(states.shape)
        file.unlink()
        super().append(mapped.copy_(states))

    def __setitem__(self, batch: Any, states: Any) -> None:
        """Overwrite a batch's in place; shape and dtype stay."""
        self[batch].copy_(states)


def hidden_states(expected_bytes: int, budget: int, folder: Path) -> list[Tensor]:
    """An empty list of hidden states, mapped to files in `folder` if they exceed the budget."""
    if expected_bytes <= budget:
        return HostStates()
    logger.info(
        "hidden states, %.1f GiB, lie in mapped files in %s", expected_bytes / 2**30, folder
    )
    return MappedStates(folder)
