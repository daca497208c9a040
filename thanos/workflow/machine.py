"""How much memory there is: on this machine, in this job."""

import os
from collections.abc import Iterator
from pathlib import Path

_SLURM_MB = "SLURM_MEM_PER_NODE"  # what a Slurm job may take on a node
_GROUPS = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """Bytes that this process and its children may take in all."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [limit for limit, _ in _control_groups()]
    if slurm := os.environ.get(_SLURM_MB, ""):
        limits += [int(slurm) * 2**20] if slurm.isdigit() and int(slurm) else []
    return min(limits)


def available_memory() -> int:
    """Bytes that are free, or would be given up by the system's caches."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    free = [int(fields["MemAvailable"].split()[0]) * 1024]
    free += [max(0, limit - used) for limit, used in _control_groups()]
    return min(*free, total_memory())


def _control_groups() -> Iterator[tuple[int, int]]:
    """Limit and use of the process' control groups that have a limit, in bytes."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = _GROUPS / controllers
        limit, use = ("max", "current") if not controllers else ("limit_in_bytes", "usage_in_bytes")
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            values = [_number(folder / f"memory.{name}") for name in (limit, use)]
            if values[0] is not None:
                yield values[0], _without_cache(folder, values[1] or 0)


def _without_cache(folder: Path, used: int) -> int:
    """The use less files that the system keeps in memory and gives up when it is short."""
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return max(0, used - int(value))
    return used


def _number(file: Path) -> int | None:
    """What the file says; None without a limit: no file, `max`, or more than any machine has."""
    value = next(iter(_lines(file)), "max")
    return int(value) if value.isdigit() and int(value) < 2**60 else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
