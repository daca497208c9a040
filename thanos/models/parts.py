"""Where the seconds of a pruning go: every moment belongs to one part of the work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from thanos.accelerator import wait_for

# `waiting` is for a block that is still being read or written; `other` is all that has no name:
# opening the model, running it up to its first block, bookkeeping.
PARTS = ("read", "forward", "gram", "solve", "write", "waiting", "other")


class _Stopwatch:
    """Seconds by part; a part that another one interrupts stands still until that ends."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._device = device
        self._running = "other"
        self._since = time.perf_counter()

    def switch(self, name: str) -> str:
        """Let part `name` run from now on, and return the one that ran until now."""
        wait_for(self._device)  # what a part asked for is its own
        now = time.perf_counter()
        self.seconds[self._running] += now - self._since
        before, self._running, self._since = self._running, name, now
        return before


# Of this thread: what is done beside the work takes none of its time.
_stopwatch: ContextVar[_Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextmanager
def timed_parts(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds by `PARTS` of what is done inside the context; complete when it ends.

    Args:
        device: where it is computed; it is waited for between two parts.
    """
    stopwatch = _Stopwatch(device)
    token = _stopwatch.set(stopwatch)
    try:
        yield stopwatch.seconds
    finally:
        stopwatch.switch("other")
        _stopwatch.reset(token)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Count what is done inside the context to one of `PARTS`, if anybody is counting."""
    stopwatch = _stopwatch.get()
    if stopwatch is None:
        yield
        return
    before = stopwatch.switch(name)
    try:
        yield
    finally:
        stopwatch.switch(before)
