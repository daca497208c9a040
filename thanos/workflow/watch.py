"""Says how long suites will take, now and then how long they still will, and how long they took."""

import sys
import threading
import time

from .estimate import Estimate

_LOOK_SECONDS = 20.0  # between two looks at what is finished
_NAMED = 3  # models, in a line
_TELL_SHARE = 0.05  # of the whole work, between two lines


class Watch:
    """Of one workflow; it writes lines to standard error."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._began = time.time()
        self._whole = 0.0  # seconds; 0: not known yet, or nothing to do
        self._told = 0.0  # seconds left when that was last said

    def announce(self) -> None:
        """Say what is expected."""
        if unknown := self._estimate.unknown():
            more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
            names = ", ".join(unknown[:_NAMED])
            _say(f"not known before {names}{more} can be read on this machine")
            return
        self._began, self._whole = time.time(), self._estimate.seconds()
        self._told = self._whole
        if self._whole:
            jobs = len(self._estimate.jobs())
            _say(f"about {duration(self._whole)} for {jobs} jobs on {self._estimate.cores} cores")

    def start(self) -> None:
        """Announce, and look again in the background until the program ends."""
        self.announce()
        threading.Thread(target=self._look_again, daemon=True).start()

    def end(self) -> None:
        """Compare what was expected with what it took."""
        if self._whole:
            took = duration(time.time() - self._began)
            _say(f"took {took}, expected {duration(self._whole)}")

    def _look_again(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Say how long it still takes, at the pace so far, if much was done since last time."""
        if not self._whole:
            if not self._estimate.unknown():
                self.announce()
            return
        left = self._estimate.seconds()
        if left and self._told - left >= _TELL_SHARE * self._whole:
            self._told = left
            pace = (time.time() - self._began) / (self._whole - left)
            _say(f"about {duration(left * pace)} left")


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3 h 05 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"


def _say(text: str) -> None:
    sys.stderr.write(f"time: {text}\n")
    sys.stderr.flush()
