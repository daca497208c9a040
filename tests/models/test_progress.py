import logging

import pytest

from thanos.models import progress
from thanos.models.progress import report_progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (3660, "1 h 01 min")],
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


def test_blocks_that_were_finished_before_say_nothing_about_the_time_left(monkeypatch, caplog):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with (
        caplog.at_level(logging.INFO, logger="thanos"),
        report_progress(done=2, total=5, on_layer=None) as report,
    ):
        for index, seconds in enumerate((1000, 1000, 30, 90, 60)):
            now += seconds
            report.block(index)

    assert caplog.messages == [
        "block 3 of 5 finished, about 1 min 00 s left",
        "block 4 of 5 finished, about 1 min 00 s left",
    ]
