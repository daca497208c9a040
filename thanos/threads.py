"""Several large files at a time: hashing and copying leave other threads alone."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

_MOST = 8  # more would only take turns on a disk


def side_by_side(action: Callable[[Item], Made], items: Iterable[Item]) -> list[Made]:
    """What `action` makes of each item, in order.

    The first error is raised once all have ended that had begun; the others are left out.
    """
    with ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1)) as threads:
        return list(threads.map(action, items))
