"""Give freed memory back to the system."""

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # no glibc: its allocator's business
        return lambda _: 0


_trim = _find_trim()


def release_freed() -> None:
    """Return what was freed to the system; takes well under a millisecond.

    glibc keeps freed memory in pieces up to 32 MiB; after some layers of different shapes that is
    more than a block's weights.
    """
    _trim(0)
