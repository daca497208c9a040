"""What is done beside the main thread's work: reading the next block, writing the last one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch

from .parts import part

Made = TypeVar("Made")


class Beside(Generic[Made]):
    """At most one task, in a thread of its own, or at once where there is to be no overlap.

    Args:
        overlap: whether tasks run beside the caller.
    """

    def __init__(self, overlap: bool) -> None:
        self.overlap = overlap
        self._thread = _single_thread() if overlap else None
        self._task: Future[Made] | None = None

    def start(self, action: Callable[..., Made], *arguments: Any) -> None:
        """Begin a task; the one before it is waited for, and what failed in it is raised."""
        self.result()
        if self._thread is None:
            action(*arguments)
        else:
            self._task = self._thread.submit(action, *arguments)

    def result(self) -> Made | None:
        """What the task made that was begun last, once it has ended; None if there is none."""
        task, self._task = self._task, None
        if task is None:
            return None
        with part("waiting"):
            return task.result()

    def end(self) -> None:
        """Wait for the task and for its thread, whatever becomes of them."""
        if self._thread is not None:
            with part("waiting"):
                self._thread.shutdown(wait=True)


def _single_thread() -> ThreadPoolExecutor:
    """A thread that computes alone.

    With helpers of its own there would be more OpenMP threads than processors, and those of the
    main thread would go to sleep at every barrier: a third of a solver's time.
    """
    threads = torch.get_num_threads()
    thread = ThreadPoolExecutor(1)
    thread.submit(_compute_alone).result()
    torch.set_num_threads(threads)  # what threads started from now on take over
    return thread


def _compute_alone() -> None:
    torch.get_num_threads()  # a thread's first use of torch takes over the number of others
    torch.set_num_threads(1)
