"""Disks that are full, cannot lock or be written, or are several; and paths that are no files."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import tempfile

import pytest
import torch
from safetensors.torch import load_file

from thanos.data.sources import calibration_documents
from thanos.errors import UserError
from thanos.models.finished_blocks import work_folder
from thanos.models.kept_states import MappedStates
from thanos.stages.run import main
from thanos.tracking import _tag


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_worked_on_and_named(tmp_path, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with work_folder(tmp_path / "work") as work:
        (work / "file").touch()

    assert "has no locks: nothing keeps a second process out" in caplog.text
    assert not (tmp_path / "work").exists()


def test_other_errors_of_locks_are_no_matter_of_the_file_system(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output"), work_folder(tmp_path / "work"):
        pass


def test_mapped_states_on_a_full_disk_leave_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    states = MappedStates(tmp_path)
    states.append(torch.ones(2, 3))
    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(UserError, match=r"no space left .*\(24 bytes more\).*hidden_memory"):
        states.append(torch.ones(2, 3))
    assert not list(tmp_path.iterdir())
    assert torch.equal(states[0], torch.ones(2, 3))


@pytest.mark.parametrize("states", [torch.ones(2, 0, 3), torch.ones(2, 3).bfloat16()])
def test_mapped_states_of_any_size_and_dtype(tmp_path, states):
    kept = MappedStates(tmp_path)
    kept.append(states)
    assert torch.equal(kept[0], states)


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path, kind in {
        "pipe": "is a pipe",
        "link": "is a link to nothing",
        ".": "is a folder",
        "none": "does not exist",
        "/dev/null": "is a device",
    }.items():
        with pytest.raises(UserError, match=f"{kind}.*; give the path of a text file"):
            calibration_documents("text", tmp_path / path)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"text": "a\\ud83d"}', r"line 2: its 'text' has half a character .* place 1"),
        ('{"text": null}', "line 2: it has no text 'text'"),
        ('{"text": 3}', "line 2: it has no text 'text'"),
        ("3", "line 2: expected a JSON object"),
        ("null", "line 2: expected a JSON object"),
    ],
)
def test_rows_that_hold_no_text_are_named(tmp_path, row, fault):
    file = tmp_path / "c4.json"
    file.write_text(json.dumps({"text": "ä \N{GRINNING FACE}"}) + f"\n{row}\n")

    with pytest.raises(UserError, match=fault):
        list(calibration_documents("c4", file))


def test_tags_are_no_longer_than_the_service_takes():
    assert _tag("thanos") == "thanos"
    assert len(_tag("org/" + "x" * 80 + "-7b")) == 64
    assert _tag("org/" + "x" * 80 + "-7b").endswith("x-7b")


@pytest.mark.parametrize("stored", ["safetensors", "pickles"])
def test_everything_on_a_file_system_of_its_own_and_the_models_read_only(
    disk, command, model_folder, tmp_path, monkeypatch, stored
):
    """Results, temporary files and the cache on three of them: nothing is moved across."""
    main(command("method=wanda", "hidden_memory=0"))
    models, results, temporary, cache = (
        disk(name, 2**23) for name in ("models", "results", "temporary", "cache")
    )
    there = shutil.copytree(model_folder, models / "stranger")
    if stored == "pickles":
        torch.save(load_file(there / "model.safetensors"), there / "pytorch_model.bin")
        (there / "model.safetensors").unlink()
    before = sorted(there.iterdir())
    subprocess.run(["mount", "-o", "remount,ro", str(models)], check=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("THANOS_CACHE", str(cache))
    elsewhere = [f"model.path={there}", f"output_dir={results / 'out'}"]

    main(command("method=wanda", "hidden_memory=0", *elsewhere))

    pruned = "checkpoint/model.safetensors"
    assert (results / "out" / pruned).read_bytes() == (tmp_path / "out" / pruned).read_bytes()
    assert sorted(there.iterdir()) == before
    assert [path.name for path in results.iterdir()] == ["out"]
    assert not list(temporary.iterdir())
