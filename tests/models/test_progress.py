import io
import logging

import pytest

from thanos.models import progress
from thanos.models.layer import LayerRecord
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
        report_progress(done=2, total=5) as report,
    ):
        for index, seconds in enumerate((1000, 1000, 30, 90, 60)):
            now += seconds
            report.block(index)

    assert caplog.messages == [
        "block 3 of 5 finished, about 1 min 00 s left",
        "block 4 of 5 finished, about 1 min 00 s left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_one_bar_with_layer_loss_and_time_left(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    record = LayerRecord(3, "layers.3.fc", (2, 3), 0.5, 0.25, 0.1, None, {})

    with (
        caplog.at_level(logging.INFO, logger="thanos"),
        report_progress(done=2, total=5) as report,
    ):
        report.block(0)
        report.block(1)
        report.block(2)
        report.layer(record)

    assert "\n" not in terminal.getvalue().rstrip("\n")
    last = terminal.getvalue().rstrip("\n").rpartition("\r")[2]
    assert last.startswith("pruning:  60%")
    assert "3/5 [" in last
    assert "<" in last  # elapsed<left
    assert "layers.3.fc: relative error 0.25, sparsity 0.5000" in last
    assert not caplog.messages
