"""Content hashes: right whatever happened to the file, and read once while nothing did."""

import hashlib
import os
import time

import pytest

from thanos import content
from thanos.content import file_hash, known_hash

LARGE = 3 * 2**20


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THANOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_known", {})
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """Files whose content was read."""
    found = []
    plain = content._hash
    monkeypatch.setattr(content, "_hash", lambda file: found.append(file) or plain(file))
    return found


def written(tmp_path, size=LARGE, name="model.safetensors"):
    """A file that was not touched for a while."""
    file = tmp_path / name
    file.write_bytes(os.urandom(size))
    return file


def aged(monkeypatch):
    """Let all files be older than they are: a file's ctime cannot be set."""
    now = time.time
    monkeypatch.setattr(content.time, "time", lambda: now() + 60)


def true_hash(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_file_is_read_once_also_by_other_processes(tmp_path, cache, reads, monkeypatch):
    file = written(tmp_path)
    aged(monkeypatch)
    assert file_hash(file) == true_hash(file)
    assert file_hash(file) == true_hash(file)
    content._known.clear()  # another process
    assert file_hash(tmp_path / "." / file.name) == true_hash(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_hash(link) == true_hash(file)
    assert reads == [file]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, cache, reads):
    file = written(tmp_path)
    file_hash(file)
    content._known.clear()
    file_hash(file)
    assert len(reads) == 2


def in_place(file):
    with file.open("r+b") as stream:
        stream.seek(LARGE // 2)
        byte = stream.read(1)
        stream.seek(LARGE // 2)
        stream.write(bytes([byte[0] ^ 1]))


def in_place_with_its_old_time(file):
    status = file.stat()
    in_place(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_another_file(file):
    status, other = file.stat(), file.with_name("other")
    other.write_bytes(os.urandom(LARGE))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [in_place, in_place_with_its_old_time, by_another_file])
def test_a_change_without_a_change_of_size_is_seen(tmp_path, cache, monkeypatch, change):
    file = written(tmp_path)
    aged(monkeypatch)
    before = file_hash(file)
    time.sleep(0.02)  # a tick of the file system's clock
    change(file)
    for _ in range(2):
        assert file_hash(file) == true_hash(file) != before
        content._known.clear()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\xff\xfe", b"a\nb\nc"])
def test_a_damaged_memory_is_not_believed(tmp_path, cache, monkeypatch, damage):
    file = written(tmp_path)
    aged(monkeypatch)
    file_hash(file)
    (entry,) = (cache / "content").iterdir()
    entry.write_bytes(damage)
    content._known.clear()
    assert file_hash(file) == true_hash(file)


def test_a_file_that_was_moved_is_not_read_again(tmp_path, cache, reads, monkeypatch):
    file = written(tmp_path)
    aged(monkeypatch)
    found = file_hash(file)
    moved = file.rename(tmp_path / "moved")
    content.remember_moved(moved, found)
    assert file_hash(moved) == true_hash(moved)
    assert reads == [file]


def test_anew_reads_whatever_is_remembered(tmp_path, cache, reads, monkeypatch):
    file = written(tmp_path)
    aged(monkeypatch)
    file_hash(file)
    file_hash(file, anew=True)
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, cache, monkeypatch):
    cache.write_text("a file, not a folder")
    file = written(tmp_path)
    aged(monkeypatch)
    assert file_hash(file) == true_hash(file)


def test_a_folder_is_its_names_and_contents(tmp_path, cache):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "a").write_text("A")
        (folder / "b").write_text("B")
    found = content.folder_hash(one, one.iterdir())
    assert content.folder_hash(other, sorted(other.iterdir(), reverse=True)) == found
    (other / "b").rename(other / "c")
    assert content.folder_hash(other, other.iterdir()) != found


def test_what_is_not_known_of_a_large_file_is_not_read(tmp_path, cache, reads, monkeypatch):
    large, small = written(tmp_path), written(tmp_path, 100, "config.json")
    aged(monkeypatch)
    assert known_hash(large) is None
    assert reads == []
    assert known_hash(small) == true_hash(small)
    file_hash(large)
    content._known.clear()  # another process
    assert known_hash(large) == true_hash(large)
