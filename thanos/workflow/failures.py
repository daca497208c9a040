"""What failed: the last lines of the logs of a workflow's jobs."""

from collections.abc import Iterator
from pathlib import Path


def failures(results: Path, since: float) -> Iterator[str]:
    """The last line of every log of a job that failed since a time."""
    for log in sorted(results.glob("**/*logs/*.log")):
        if log.stat().st_mtime < since:
            continue
        lines = log.read_text(errors="replace").splitlines() or ["(empty log)"]
        if lines[-1].startswith("error:") or any("Traceback" in line for line in lines):
            yield f"{log}: {lines[-1]}"
