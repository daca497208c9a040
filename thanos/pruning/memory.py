"""How much memory temporaries may take, and how rows are split to stay within it."""

import os
from collections.abc import Iterator

import torch

from thanos.accelerator import free_memory

# Larger segments are not faster; smaller machines get a share of what is free.
_MOST = 512 * 2**20
_LEAST = 16 * 2**20
_SHARE = 8


def default_memory_budget(device: torch.device) -> int:
    """Bytes for temporaries on a device: an eighth of its free memory, at most 512 MiB."""
    free = free_memory(device)
    if free is None:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(_LEAST, min(_MOST, free // _SHARE))


def row_segments(rows: int, bytes_per_row: int, memory_budget: int) -> Iterator[slice]:
    """Split rows so that a segment's temporaries stay within the budget, one row at least."""
    size = max(1, min(rows, memory_budget // max(1, bytes_per_row)))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))
