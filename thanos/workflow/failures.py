"""What failed: the last lines of the logs of a workflow's jobs."""

from collections.abc import Iterable, Iterator
from pathlib import Path


def failures(folders: Iterable[Path], since: float) -> Iterator[str]:
    """The last line of every log, below some folders, of a job that failed since a time."""
    logs = {log for folder in folders for log in folder.glob("**/*logs/*.log")}
    for log in sorted(logs):
        if log.stat().st_mtime < since:
            continue
        lines = log.read_text(errors="replace").splitlines() or ["(empty log)"]
        if lines[-1].startswith("error:") or any("Traceback" in line for line in lines):
            yield f"{log}: {lines[-1]}"
