"""Reading ahead and writing behind change when something is done, and nothing else."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from thanos.errors import UserError
from thanos.models import FinishedBlocks, StreamedBlocks, prune_model, streaming
from thanos.models.overlap import Beside
from thanos.models.parts import timed_parts
from thanos.models.stored_weights import read_tensor
from thanos.pruning import prune_weight

BLOCKS = 3
REST = 0.05  # seconds


def thanos_2_4(weight, inputs, **given):
    return prune_weight(weight, inputs, method="thanos", pattern="2:4", **given)


@pytest.fixture
def folder(tiny, tmp_path):
    tiny("llama").save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


def stream(folder, windows, work, overlap, prune=thanos_2_4, **options):
    finished = FinishedBlocks(work, {"run": 1})
    with StreamedBlocks(folder, finished=finished, overlap=overlap) as source:
        records = prune_model(
            *(source, windows, prune),
            **{"statistics": "gram", "batch_size": 2, "done": tuple(finished.records), **options},
        )
    return finished, [{**vars(record), "seconds": None} for record in records]


@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("family", ["llama-tied-biased", "mixtral", "gemma2"])
def test_the_result_is_the_same(tiny, windows, tmp_path, family, correction):
    tiny(family).bfloat16().save_pretrained(tmp_path / "dense")

    def prune(weight, inputs, **given):
        return thanos_2_4(weight, inputs, correction=float(correction), **given)

    def data_free(weight, inputs, **given):
        return prune_weight(weight, None, method="magnitude", pattern="2:4", **given)

    found = {
        overlap: stream(
            *(tmp_path / "dense", windows, tmp_path / str(overlap), overlap, prune),
            correction=correction,
            data_free=data_free,
        )
        for overlap in (False, True)
    }

    (expected, records), (finished, others) = found.values()
    assert others == records
    assert finished.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(read_tensor(finished.tensors[name]), read_tensor(tensor)), name


def slowed(function):
    def slow(*args, **kwargs):
        time.sleep(REST)
        return function(*args, **kwargs)

    return slow


@pytest.mark.parametrize("overlap", [False, True])
def test_blocks_are_read_and_written_while_others_are_computed(
    folder, windows, tmp_path, monkeypatch, overlap
):
    """All is slow: what is read, what is written, and in a block more than both, what is solved."""
    read = StreamedBlocks._read_all
    monkeypatch.setattr(StreamedBlocks, "_read_all", slowed(read))
    monkeypatch.setattr(FinishedBlocks, "keep", slowed(FinishedBlocks.keep))

    with timed_parts(torch.device("cpu")) as seconds:
        stream(folder, windows, tmp_path / "work", overlap, slowed(thanos_2_4))

    spent = seconds["read"] + seconds["write"] + seconds["waiting"]
    # What is around the blocks and the first of them are waited for, and the writing of the last.
    first_and_last = 3 * REST
    if overlap:
        assert first_and_last <= spent < first_and_last + REST
    else:
        assert spent >= (1 + 2 * BLOCKS) * REST


def test_at_most_one_block_is_read_ahead_and_one_is_being_written(
    folder, windows, tmp_path, monkeypatch
):
    running, most, lock = {"read": 0, "written": 0}, {"read": 0, "written": 0}, threading.Lock()
    waits = threading.Event()

    def counted(kind, function):
        def count(*args):
            with lock:
                running[kind] += 1
                most[kind] = max(most[kind], running[kind])
            waits.wait(REST)
            try:
                return function(*args)
            finally:
                with lock:
                    running[kind] -= 1

        return count

    monkeypatch.setattr(StreamedBlocks, "_read_all", counted("read", StreamedBlocks._read_all))
    monkeypatch.setattr(FinishedBlocks, "keep", counted("written", FinishedBlocks.keep))
    stream(folder, windows, tmp_path / "work", True)

    assert most == {"read": 1, "written": 1}


def test_a_block_that_cannot_be_read_is_an_error_when_its_turn_comes(
    folder, windows, tmp_path, monkeypatch
):
    def broken(stored, dtype=None):
        if "layers.1." in stored.name:
            raise UserError(f"{stored.name} is damaged")
        return read_tensor(stored, dtype)

    monkeypatch.setattr(streaming, "read_tensor", broken)
    with pytest.raises(UserError, match=r"layers\.1\..* is damaged"):
        stream(folder, windows, tmp_path / "work", True)
    assert len(FinishedBlocks(tmp_path / "work", {"run": 1})) == 1


@pytest.mark.parametrize("index", range(BLOCKS))
def test_a_block_that_cannot_be_written_is_an_error_and_costs_no_other(
    folder, windows, tmp_path, monkeypatch, index
):
    keep = FinishedBlocks.keep

    def full(self, number, tensors, records):
        if number == index:
            raise UserError("no space left on device")
        keep(self, number, tensors, records)

    monkeypatch.setattr(FinishedBlocks, "keep", full)
    with pytest.raises(UserError, match="no space left"):
        stream(folder, windows, tmp_path / "work", True)
    monkeypatch.undo()

    assert len(FinishedBlocks(tmp_path / "work", {"run": 1})) == index
    whole, records = stream(folder, windows, tmp_path / "whole", False)
    finished, resumed = stream(folder, windows, tmp_path / "work", True)
    assert resumed == records
    for name, tensor in whole.tensors.items():
        assert torch.equal(read_tensor(finished.tensors[name]), read_tensor(tensor))


def test_what_is_being_written_is_kept_when_the_next_block_fails(
    folder, windows, tmp_path, monkeypatch
):
    monkeypatch.setattr(FinishedBlocks, "keep", slowed(FinishedBlocks.keep))
    solved = []

    def fail(weight, inputs):
        solved.append(weight)
        if len(solved) > 7:  # the layers of a block
            raise KeyboardInterrupt
        return thanos_2_4(weight, inputs)

    with pytest.raises(KeyboardInterrupt):
        stream(folder, windows, tmp_path / "work", True, fail)
    monkeypatch.undo()

    assert len(FinishedBlocks(tmp_path / "work", {"run": 1})) == 1


def test_what_is_done_beside_has_no_threads_of_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        beside = Beside(overlap=True)
        beside.start(torch.get_num_threads)
        assert beside.result() == 1
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as another:
            assert another.submit(torch.get_num_threads).result() == 2
        beside.end()
    finally:
        torch.set_num_threads(before)
