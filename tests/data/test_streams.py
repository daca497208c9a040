"""Documents in a file are those that a list of them would hold, wherever one starts to read."""

import bisect
import gzip
import json
import random
import tracemalloc
from functools import partial

import pyarrow
import pytest
import torch
from pyarrow import parquet

from thanos.data import streams
from thanos.data.sources import _column, _stripped, calibration_documents
from thanos.data.streams import LineDocuments, ParquetDocuments
from thanos.data.windows import MAX_ADDED_TOKENS, sample_windows, survey, token_ids
from thanos.errors import UserError

LETTERS = "abcdefghij klmno pqrst\nuvwxyzé\u2028😀"


@pytest.fixture(autouse=True)
def bookmarks_close_together(monkeypatch):
    monkeypatch.setattr(streams, "_READ", 97)
    monkeypatch.setattr(streams, "_APART", 500)


@pytest.fixture
def documents():
    rng = random.Random(0)
    return ["".join(rng.choices(LETTERS, k=rng.randrange(1, 300))) for _ in range(400)]


def lines_of(documents):
    rows = [
        json.dumps({"url": "u", "text": d}, ensure_ascii=n % 2 == 0)
        for n, d in enumerate(documents)
    ]
    return "".join(f"{row}\r\n\n" if n % 7 == 0 else f"{row}\n" for n, row in enumerate(rows))


def members(content):
    """A gzip file of three members, with zeros behind them."""
    third = len(content) // 3
    cut = [content[:third], content[third : 2 * third], content[2 * third :]]
    return b"".join(map(gzip.compress, cut)) + b"\0" * 512


@pytest.fixture(params=["plain", "gzip", "members", "no newline at the end", "parquet"])
def stream(request, documents, tmp_path):
    content = b"\xef\xbb\xbf" + lines_of(documents).encode()
    if request.param == "parquet":
        table = pyarrow.table({"n": range(len(documents)), "text": documents})
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=70)
        return ParquetDocuments(tmp_path / "a.parquet", "text")
    packed = {"gzip": gzip.compress, "members": members}.get(request.param)
    if request.param == "no newline at the end":
        content = content.rstrip(b"\r\n")
    file = tmp_path / ("a.json.gz" if packed else "a.json")
    file.write_bytes(packed(content) if packed else content)
    return LineDocuments(file, partial(_column, "text"))


def test_a_stream_is_the_list_in_any_order(stream, documents):
    order = random.Random(1).sample(range(len(documents)), len(documents))
    assert [stream[n] for n in order] == [documents[n] for n in order]
    assert len(stream) == len(documents)
    assert list(stream) == list(stream) == documents
    assert stream[3:9] == documents[3:9]
    for outside in (-1, len(documents)):
        with pytest.raises(IndexError):
            stream[outside]
    if isinstance(stream, LineDocuments):
        places = [mark.documents for mark in stream._bookmarks]
        assert len(places) > 20
        assert places == sorted(places)
        assert bisect.bisect(places, 200) not in (0, len(places))


def windows_as_before(documents, tokenizer, windows, seqlen, seed):
    """The draw as it was when all documents were in memory."""
    generator = random.Random(seed)
    candidates = [
        i for i, text in enumerate(documents) if len(text.encode()) + MAX_ADDED_TOKENS > seqlen
    ]
    drawn = []
    while len(drawn) < windows:
        position = generator.randrange(len(candidates))
        ids = token_ids(documents[candidates[position]], tokenizer)
        if len(ids) <= seqlen:
            candidates[position] = candidates[-1]
            candidates.pop()
            continue
        start = generator.randrange(len(ids) - seqlen + 1)
        drawn.append(ids[start : start + seqlen])
    return torch.stack(drawn)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_windows_are_those_of_documents_in_memory(stream, documents, tokenizer, seed):
    expected = windows_as_before(documents, tokenizer, 60, 200, seed)
    surveyed = survey(stream)
    drawn = sample_windows(stream, tokenizer, 60, 200, seed, sizes=surveyed.sizes)
    assert drawn.dtype == torch.int64
    assert torch.equal(drawn, expected)
    assert surveyed == survey(documents)


def test_a_line_much_longer_than_a_piece(tmp_path):
    texts = ["a" * 50_000, "b", "c" * 9_999]
    file = tmp_path / "a.txt.gz"
    file.write_bytes(gzip.compress("\n".join(texts).encode()))
    assert list(LineDocuments(file, _stripped)) == texts


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_nothing_in_it(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.txt is empty; give a file with text"):
        list(LineDocuments(tmp_path / "a.txt", _stripped))


def test_a_line_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8 \(line 3\); convert it"):
        list(LineDocuments(tmp_path / "a.txt", _stripped))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_packed_file_that_is_cut_short(documents, tmp_path, share):
    packed = gzip.compress(lines_of(documents).encode())
    (tmp_path / "a.json.gz").write_bytes(packed[: int(share * len(packed))])
    with pytest.raises(UserError, match=r"a\.json\.gz cannot be read \(it ends in the middle\)"):
        list(LineDocuments(tmp_path / "a.json.gz", partial(_column, "text")))


def test_a_packed_file_with_a_flipped_byte(documents, tmp_path):
    packed = bytearray(gzip.compress(lines_of(documents).encode()))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "a.json.gz").write_bytes(packed)
    with pytest.raises(UserError, match=r"a\.json\.gz.*(cannot be read|not JSON|not UTF-8)"):
        list(LineDocuments(tmp_path / "a.json.gz", partial(_column, "text")))


def test_a_large_shard_is_never_in_memory(tmp_path, tokenizer, monkeypatch):
    monkeypatch.undo()
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=6)) for _ in range(500)]
    with gzip.open(tmp_path / "c4.json.gz", "wt", compresslevel=1) as file:
        for _ in range(3000):
            text = " ".join(rng.choices(words, k=rng.randrange(400, 2000)))
            file.write(json.dumps({"text": text}) + "\n")
    tracemalloc.start()
    try:
        stream = calibration_documents("c4", path=tmp_path / "c4.json.gz")
        surveyed = survey(stream)
        sample_windows(stream, tokenizer, 8, 64, 0, sizes=surveyed.sizes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(surveyed.sizes)
    assert size > 20e6
    # Pieces between two bookmarks are looked through, not kept.
    assert peak < 4e6, peak
