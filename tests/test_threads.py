"""Several files at a time."""

import os
import threading
import time
from pathlib import Path

import pytest

from thanos.content import file_hash, file_hashes
from thanos.threads import side_by_side


def test_all_are_begun_before_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    together = threading.Barrier(3, timeout=30)

    def meet(number: int) -> int:
        together.wait()
        return 2 * number

    assert side_by_side(meet, range(6)) == [0, 2, 4, 6, 8, 10]


def test_an_error_ends_what_has_not_begun_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together, ended = threading.Barrier(2, timeout=30), []

    def work(number: int) -> None:
        if number < 2:
            together.wait()
        if number == 0:
            raise ValueError("the first")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="the first"):
        side_by_side(work, range(100))
    so_far = len(ended)
    assert 1 in ended
    time.sleep(0.1)
    assert len(ended) == so_far < 99


def test_hashes_are_those_of_one_after_the_other(tmp_path: Path) -> None:
    files = [tmp_path / f"{n}.bin" for n in range(20)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * (2**16 + number))
    assert file_hashes(iter(files)) == {file: file_hash(file) for file in files}
    assert list(file_hashes(files, anew=True)) == files
