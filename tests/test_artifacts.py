"""Files are whole or absent, and damage is noticed."""

import contextlib

import pytest

from thanos.artifacts import (
    atomic_file,
    atomic_folder,
    checksum_of,
    read_json,
    verify_manifest,
    verify_text,
    write_checked_text,
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


@pytest.mark.parametrize("name", ["manifest.json", "result.json"])
def test_any_changed_byte_of_a_sealed_file_is_noticed(tmp_path, name):
    file = tmp_path / name
    write_json(file, {"loss": 3.25, "windows": [8, 256], "corpus": "docstrings"})
    assert read_json(file, sealed=True) == {
        "loss": 3.25,
        "windows": [8, 256],
        "corpus": "docstrings",
    }
    content = file.read_bytes()
    for position in range(len(content)):
        for change in (1, 3, 0x20):  # 3 turns a line's end into a tab: still JSON, and equal
            damaged = bytearray(content)
            damaged[position] ^= change
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=name):
                read_json(file, sealed=True)


def test_a_text_is_checked_against_the_file_beside_it(tmp_path):
    file = tmp_path / "results.csv"
    write_checked_text(file, "run,value\na,1\n")
    verify_text(file, required=True)
    assert checksum_of(file).read_text().endswith("  results.csv\n")
    file.write_text("run,value\na,2\n")
    with pytest.raises(UserError, match=r"results\.csv is damaged"):
        verify_text(file)
    checksum_of(file).unlink()
    verify_text(file)  # made by hand, say
    with pytest.raises(UserError, match=r"results\.csv\.sha256 is missing"):
        verify_text(file, required=True)


def test_damaged_json_names_the_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is damaged"):
        read_json(file)
