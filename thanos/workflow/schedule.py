"""When jobs end that are started as soon as there is room for them."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

Key = tuple[str, str]  # kind and name of what a job makes


@dataclass(frozen=True)
class Job:
    """How long a job takes, on how many cores, and what must be there before."""

    seconds: float
    cores: int
    after: tuple[Key, ...] = ()


def makespan(jobs: Mapping[Key, Job], cores: int) -> float:
    """Seconds until all jobs have ended, if whatever fits is started, in the order given.

    What a job is after and no job makes is there already.
    """
    waiting = dict(jobs)
    running: list[tuple[float, Key]] = []
    unfinished = set(jobs)
    now, free = 0.0, cores
    while unfinished:
        for key, job in list(waiting.items()):
            if free >= min(job.cores, cores) and unfinished.isdisjoint(job.after):
                heapq.heappush(running, (now + job.seconds, key))
                free -= min(job.cores, cores)
                del waiting[key]
        now, ended = heapq.heappop(running)
        free += min(jobs[ended].cores, cores)
        unfinished.remove(ended)
    return now
