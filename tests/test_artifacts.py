"""Files are whole or absent, and damage is noticed."""

import contextlib

import pytest

from thanos.artifacts import (
    atomic_file,
    atomic_folder,
    read_json,
    verify_manifest,
    write_json,
    write_manifest,
)
from thanos.errors import UserError


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with contextlib.suppress(RuntimeError), atomic_file(file) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("stop")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "out"
    for name in ("first", "second"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["second"]
    with contextlib.suppress(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "third").write_text("x")
        raise RuntimeError("stop")
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_non_finite_number_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"layers\[1\].error is not finite"):
        write_json(tmp_path / "a.json", {"layers": [{"error": 1.0}, {"error": float("nan")}]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "no manifest"])
def test_damage_is_noticed(tmp_path, damage):
    data = tmp_path / "weights.bin"
    data.write_bytes(bytes(range(256)))
    write_manifest(tmp_path, {"seed": 0})
    assert verify_manifest(tmp_path, "rule prune")["seed"] == 0
    match damage:
        case "flip":
            data.write_bytes(bytes([1, *range(1, 256)]))
        case "truncate":
            data.write_bytes(bytes(range(255)))
        case "remove":
            data.unlink()
        case _:
            (tmp_path / "manifest.json").unlink()
    with pytest.raises(UserError, match="run rule prune again"):
        verify_manifest(tmp_path, "rule prune")


def test_damaged_json_names_the_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(file)
