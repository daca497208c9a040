"""Every moment of a pruning is counted once, to the part of the work that took it."""

import threading
import time

import pytest
import torch

from thanos.models import prune_model
from thanos.models.parts import PARTS, part, timed_parts
from thanos.models.source import BlocksInMemory
from thanos.pruning import InputStatistics, prune_weight

CPU = torch.device("cpu")
REST = 0.01  # seconds


def slowed(function):
    def slow(*args, **kwargs):
        time.sleep(REST)
        return function(*args, **kwargs)

    return slow


def test_a_part_stands_still_while_another_interrupts_it():
    began = time.perf_counter()
    with timed_parts(CPU) as seconds:
        with part("forward"):
            time.sleep(REST)
            with part("gram"):
                time.sleep(3 * REST)
        time.sleep(2 * REST)
    took = time.perf_counter() - began

    assert set(seconds) == set(PARTS)
    assert sum(seconds.values()) == pytest.approx(took, abs=1e-3)
    for name, least in (("forward", 1), ("gram", 3), ("other", 2)):
        assert seconds[name] >= least * REST
    assert seconds["forward"] < seconds["gram"]


def test_an_error_ends_its_part():
    with timed_parts(CPU) as seconds:
        with pytest.raises(KeyError), part("solve"):
            raise KeyError
        time.sleep(REST)

    assert seconds["other"] >= REST > seconds["solve"]


def test_what_another_thread_does_meanwhile_is_not_counted():
    def beside():
        with part("write"):
            time.sleep(REST)

    with timed_parts(CPU) as seconds:
        thread = threading.Thread(target=beside)
        thread.start()
        thread.join()

    assert seconds["write"] == 0
    assert seconds["other"] >= REST


def test_pruning_a_model_counts_each_part(tiny, windows, monkeypatch):
    """Each is made slow by itself: blocks read and given back, inputs added up, layers solved."""
    for owner, name in (
        *((BlocksInMemory, name) for name in ("take", "give_back")),
        (InputStatistics, "update"),
    ):
        monkeypatch.setattr(owner, name, slowed(getattr(owner, name)))
    solve = slowed(lambda weight, inputs: prune_weight(weight, inputs, pattern="2:4"))

    with timed_parts(CPU) as seconds:
        prune_model(tiny("llama"), windows, solve, statistics="gram", batch_size=len(windows))

    # Three blocks; four different inputs and seven layers in each.
    for name, times in (("read", 3), ("write", 3), ("gram", 3 * 4), ("solve", 3 * 7)):
        assert times * REST <= seconds[name] < 2 * times * REST, name
    assert 0 < seconds["forward"] < seconds["solve"]
