import contextlib
import json
import logging
import multiprocessing
import time

import pytest
import torch

from thanos.errors import UserError
from thanos.models import FinishedBlocks, work_folder
from thanos.models.layer import LayerRecord
from thanos.models.stored_weights import read_tensor


def layer(block: int) -> LayerRecord:
    return LayerRecord(block, f"layers.{block}.fc", (2, 3), 0.5, 1 / 3, 0.1, None, {"rows": 1})


def tensor(block: int) -> dict[str, torch.Tensor]:
    return {f"layers.{block}.fc.weight": torch.full((2, 3), float(block))}


@pytest.fixture
def filled(tmp_path):
    """A folder with three finished blocks."""
    blocks = FinishedBlocks(tmp_path, {"method": "thanos", "seed": 0})
    for block in range(3):
        blocks.keep(block, tensor(block), [layer(block)])
    return tmp_path


def reopen(folder, caplog, **changes):
    with caplog.at_level(logging.INFO, logger="thanos"):
        blocks = FinishedBlocks(folder, {"method": "thanos", "seed": 0, **changes})
    assert len(caplog.messages) <= 2
    return blocks, caplog.text


def test_what_is_kept_is_found_again(filled, caplog):
    blocks, said = reopen(filled, caplog)

    assert len(blocks) == 3
    assert blocks.records == [[layer(block)] for block in range(3)]
    assert torch.equal(read_tensor(blocks.tensors["layers.2.fc.weight"]), torch.full((2, 3), 2.0))
    assert "3 finished blocks in" in said


def test_another_configuration_starts_afresh_and_says_what_changed(filled, caplog):
    blocks, said = reopen(filled, caplog, seed=1)

    assert len(blocks) == 0
    assert f"{filled} is of another run (seed changed); starting afresh" in said
    assert not list(filled.glob("block-*"))


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_identity_starts_afresh(filled, caplog, content):
    (filled / "run.json").write_text(content)

    blocks, said = reopen(filled, caplog)

    assert len(blocks) == 0
    assert "run.json is damaged; starting afresh" in said


def truncate(file):
    file.write_bytes(file.read_bytes()[:-9])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "harm", "message"),
    [
        ("safetensors", truncate, "its content differs from its record"),
        ("safetensors", flip, "its content differs from its record"),
        ("safetensors", lambda file: file.unlink(), "is missing"),
        ("json", truncate, "is damaged"),
        ("json", lambda file: file.unlink(), "has no record"),
        ("json", lambda file: file.write_text("{}"), "is damaged"),
    ],
)
def test_damage_is_recognised_and_the_blocks_before_it_stay(filled, caplog, suffix, harm, message):
    harm(filled / f"block-0001.{suffix}")

    blocks, said = reopen(filled, caplog)

    assert len(blocks) == 1
    assert message in said
    assert "pruning again from block 1 on" in said
    assert {file.stem for file in filled.glob("block-*")} == {"block-0000"}
    blocks.keep(1, tensor(1), [layer(1)])
    assert len(FinishedBlocks(filled, {"method": "thanos", "seed": 0})) == 2


def test_a_write_that_was_cut_short_leaves_no_block(filled, caplog, monkeypatch):
    blocks, _ = reopen(filled, caplog)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("thanos.models.finished_blocks.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        blocks.keep(3, tensor(3), [layer(3)])
    monkeypatch.undo()

    assert len(FinishedBlocks(filled, {"method": "thanos", "seed": 0})) == 3


def test_blocks_are_kept_in_order(tmp_path):
    with pytest.raises(ValueError, match="block 1 cannot follow 0 finished ones"):
        FinishedBlocks(tmp_path, {}).keep(1, tensor(1), [])


def test_work_folder_goes_when_all_is_done(tmp_path):
    with work_folder(tmp_path / "work") as folder:
        (folder / "block-0000.json").write_text(json.dumps({}))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("file", "kept"),
    [
        ("block-0000.json", True),
        ("thanos-2-4/block-0000.json", True),
        ("measurements/corpus.json", True),
        ("block-0000.safetensors", False),
        ("calibration/manifest.json", False),
        (None, False),
    ],
)
def test_after_an_error_it_stays_if_it_holds_something_finished(tmp_path, file, kept):
    def fail():
        with work_folder(tmp_path / "work") as folder:
            if file is not None:
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_text("{}")
            raise UserError("no such corpus")

    with pytest.raises(UserError, match="no such corpus"):
        fail()
    assert (tmp_path / "work").exists() == kept


def test_leftovers_of_cut_short_writes_are_cleared(tmp_path):
    work = tmp_path / "work"
    for name in ("block-0000.json", ".a.tmp", "inner/.b.tmp", "inner/c", "inner/.d/.e"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).touch()
    with work_folder(work):
        left = {file.relative_to(work).as_posix() for file in work.rglob("*")}
    assert left == {"block-0000.json", "inner", "inner/c", "lock"}


def test_two_processes_do_not_share_a_work_folder(tmp_path):
    with (
        work_folder(tmp_path / "work"),
        pytest.raises(UserError, match="another process is working in"),
        work_folder(tmp_path / "work"),
    ):
        pass


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_a_process_that_waits_works_in_it_when_the_other_has_ended(tmp_path, ending):
    def first() -> None:
        with contextlib.suppress(UserError), work_folder(tmp_path / "work") as folder:
            (folder / "block-0000.json").write_text("{}")
            (tmp_path / "started").touch()
            time.sleep(0.5)
            (tmp_path / "ended").touch()
            if ending == "failed":
                raise UserError("no such corpus")

    process = multiprocessing.get_context("fork").Process(target=first)
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    with work_folder(tmp_path / "work", wait=True) as folder:
        assert (tmp_path / "ended").exists()
        assert (folder / "block-0000.json").exists() == (ending == "failed")
        with pytest.raises(UserError, match="another process"), work_folder(tmp_path / "work"):
            pass
    process.join()
    assert not (tmp_path / "work").exists()
