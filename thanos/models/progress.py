"""Progress of the pruning pass: a bar on a terminal, lines of log elsewhere."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from .layer import LayerRecord

logger = logging.getLogger(__name__)


class Progress:
    """Counts blocks and tells how long the rest will take."""

    def __init__(self, done: int, total: int, bar: tqdm) -> None:
        self._done = done
        self._total = total
        self._bar = bar
        self._started = time.monotonic()

    def layer(self, record: LayerRecord) -> None:
        """A layer is pruned."""
        self._bar.set_postfix_str(str(record))
        if self._bar.disable:
            logger.info("pruned %s", record)

    def block(self, index: int) -> None:
        """Block `index` is finished, or was before and has run again."""
        if index < self._done:
            self._started = time.monotonic()  # running again says nothing about the rest
            return
        self._bar.update()
        finished, left = index + 1, self._total - index - 1
        if self._bar.disable and left:
            spent = time.monotonic() - self._started
            seconds = spent / (finished - self._done) * left
            logger.info(
                "block %d of %d finished, about %s left", finished, self._total, _duration(seconds)
            )


@contextmanager
def report_progress(done: int, total: int) -> Iterator[Progress]:
    """A progress bar over blocks on a terminal, one line of log per layer and block elsewhere.

    Args:
        done: blocks that were finished before.
        total: all blocks.
    """
    with tqdm(
        total=total, initial=done, unit="block", desc="pruning", disable=not sys.stderr.isatty()
    ) as bar:
        yield Progress(done, total, bar)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
