import gzip
import json
import re
import subprocess
import sys
from importlib.metadata import version

import pyarrow
import pytest
from pyarrow import parquet

from thanos.data.sources import (
    calibration_documents,
    corpus_packages,
    evaluation_max_windows,
    evaluation_text,
    public_file,
)
from thanos.errors import UserError
from thanos.testbed.corpus import Document


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def shard(texts):
    lines = "".join(json.dumps({"text": t, "url": "u"}) + "\n" for t in texts)
    return gzip.compress(
        lines.encode(), mtime=0
    )  # a part of tests' names, the same in every process


def test_text_is_one_document_as_it_is(tmp_path):
    file = write(tmp_path / "a.txt", "first\n\nsecond é\n")
    assert calibration_documents("text", path=file) == ["first\n\nsecond é\n"]
    assert evaluation_text("text", path=str(file)) == "first\n\nsecond é\n"


def test_docstrings_give_calibration_and_held_out_documents(monkeypatch):
    documents = [Document("a.py", "heldout", "A"), Document("b.py", "heldout", "B")]
    documents.append(Document("c.py", "calibration", "C"))
    monkeypatch.setattr("thanos.testbed.corpus.extract", lambda last_split: iter(documents))
    assert calibration_documents("docstrings") == ["C"]
    assert evaluation_text("docstrings") == "A\n\nB"


def test_wikitext2_rows_are_those_of_the_hub(tmp_path):
    # The hub keeps a line's newline and has an empty row for a blank line.
    rows = ["", " = Title = \n", "", " Some text . \n"]
    write(tmp_path / "raw/wikitext2/wiki.test.raw", " \n = Title = \n \n Some text . \n")
    file = tmp_path / "hub/wikitext2/test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.table({"text": rows}), file)
    for mirror in ("raw", "hub"):
        assert evaluation_text("wikitext2", mirror=tmp_path / mirror) == "\n\n".join(rows)
    write(tmp_path / "raw/wikitext2/wiki.train.raw", " a \n b \n")
    assert calibration_documents("wikitext2", mirror=tmp_path / "raw") == [" a \n\n\n b \n"]


def test_ptb_sentences_are_joined_by_spaces(tmp_path):
    write(tmp_path / "ptb/ptb.test.txt", " no it was n't \n but N <unk> \n")
    write(tmp_path / "ptb/ptb.train.txt", " one \n two \n")
    assert evaluation_text("ptb", mirror=tmp_path) == "no it was n't but N <unk>"
    assert calibration_documents("ptb", mirror=tmp_path) == ["one two"]


def test_c4_shards(tmp_path):
    texts = [f"document {i}\nline" for i in range(1200)]
    write(tmp_path / "c4/c4-train.00000-of-01024.json.gz", shard(["a", "b\nc"]))
    write(tmp_path / "c4/c4-validation.00000-of-00008.json.gz", shard(texts))
    assert list(calibration_documents("c4", mirror=tmp_path)) == ["a", "b\nc"]
    assert evaluation_text("c4", mirror=tmp_path) == " ".join(texts[:1100])
    assert evaluation_max_windows("c4") == 256
    assert evaluation_max_windows("wikitext2") is None


def test_a_plain_text_sample_of_c4_has_one_document_per_line(tmp_path, caplog):
    file = write(tmp_path / "sample.txt", "first document\u2028same line\n\nsecond\n")
    documents = ["first document\u2028same line", "second"]
    assert list(calibration_documents("c4", path=file)) == documents
    assert evaluation_text("c4", path=file) == " ".join(documents)
    assert "c4: 2 documents, the protocol takes 1100" in caplog.text


def test_public_sets_are_fetched_by_name_at_a_pinned_revision(tmp_path, monkeypatch):
    file = write(tmp_path / "shard.json.gz", shard(["a", "b"]))
    asked = []

    def fetch(repository, filename, *, repo_type, revision, local_dir):
        assert local_dir is None
        asked.append((repository, filename, repo_type, revision))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert list(calibration_documents("c4")) == ["a", "b"]
    revision = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
    assert asked == [
        ("allenai/c4", "en/c4-train.00000-of-01024.json.gz", "dataset", revision),
    ]


def test_where_a_public_text_comes_from(tmp_path):
    file = write(tmp_path / "ptb/ptb.test.txt", " one \n")
    assert public_file("ptb", "evaluation", tmp_path) == file
    with pytest.raises(UserError, match=r"mirror .* has no ptb/ptb\.train\.txt or"):
        public_file("ptb", "calibration", str(tmp_path))
    at_revision = "allenai/c4@1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
    assert public_file("c4", "calibration", None) == at_revision
    for source in ("ptb", "wikitext2"):
        assert re.fullmatch(r"[\w/.-]+@[\w/]+", public_file(source, "evaluation", None))
    for source in ("docstrings", "code", "shuffled", "text"):
        assert public_file(source, "calibration", tmp_path) is None
    assert all(version(package) for package in corpus_packages())


def test_neither_network_nor_mirror(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as error:
        evaluation_text("wikitext2")
    assert str(error.value).endswith("set mirror to a folder that holds wikitext2/wiki.test.raw")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("text", None, "f.txt does not exist; give the path of a text file"),
        ("text", b"", "f.txt is empty; give a file with text"),
        ("text", b" \n\n ", "f.txt is empty; give a file with text"),
        ("text", b"caf\xe9", r"f.txt is not UTF-8 \(byte 3\); convert it"),
        ("ptb", b"", "f.txt is empty"),
        ("wikitext2", b"\xff\xfe", "f.txt is not UTF-8"),
    ],
)
def test_unreadable_files(tmp_path, source, content, message):
    file = tmp_path / "f.txt"
    if content is not None:
        file.write_bytes(content)
    for read in (calibration_documents, evaluation_text):
        with pytest.raises(UserError, match=message):
            read(source, path=file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c4.json.gz", shard(["a" * 1000])[:-20], "cannot be read .*; fetch it again"),
        ("c4.json.gz", b"plain", "cannot be read .*; fetch it again"),
        ("c4.jsonl", b'{"text": "a"}\n{"tex', "line 2: not JSON"),
        ("c4.jsonl", b"[1]\n", "line 1: expected a JSON object"),
        ("c4.jsonl", b'{"content": "a"}\n', "line 1: it has no text 'text'"),
        ("c4.parquet", b"PAR1 damaged", "cannot be read"),
    ],
)
def test_damaged_copies_of_public_sets(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        list(calibration_documents("c4", path=write(tmp_path / name, content)))


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a file"):
        evaluation_text("text", path=tmp_path)


def test_unknown_source_and_missing_path():
    with pytest.raises(UserError, match=r"calibration.source: unknown 'wiki'; known are docstr.*"):
        calibration_documents("wiki")
    with pytest.raises(UserError, match=r"evaluation.corpora: unknown 'wiki'; known are docstr.*"):
        evaluation_text("wiki")
    with pytest.raises(UserError, match=r"evaluation.path: source 'text' needs the path"):
        evaluation_text("text")


def test_a_mirror_without_the_file_names_both(tmp_path):
    with pytest.raises(UserError, match=r"mirror .* has no ptb/ptb.train.txt or"):
        calibration_documents("ptb", mirror=tmp_path)


def test_local_sources_import_no_heavy_library(tmp_path):
    write(tmp_path / "ptb/ptb.test.txt", "a b\n")
    script = (
        "import sys; from thanos.data.sources import evaluation_text;"
        f"evaluation_text('ptb', mirror={str(tmp_path)!r});"
        "print({'datasets', 'transformers', 'lm_eval', 'torch', 'pyarrow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "set()\n"


def test_contrasts_keep_the_words_or_the_files_but_not_the_docstrings(monkeypatch):
    from thanos.testbed import contrast

    words = "one two two three four five six seven eight nine ten"
    documents = [Document("a.py", "heldout", "A"), Document("b.py", "calibration", words)]
    monkeypatch.setattr(contrast, "extract", lambda last_split: iter(documents))
    (shuffled,) = calibration_documents("shuffled")
    assert sorted(shuffled.split()) == sorted(words.split())
    assert shuffled != words
    assert calibration_documents("shuffled") == [shuffled]
    with pytest.raises(UserError, match=r"evaluation\.corpora: unknown 'shuffled'"):
        evaluation_text("shuffled")


def test_source_code_is_without_its_docstrings():
    from thanos.testbed.contrast import without_docstrings

    source = '''"""Module."""
import os

def f(x):
    """One.

    Two.
    """
    return "not a docstring"  # why

class C:
    "Short."
    y = 1
'''
    assert without_docstrings(source).split("\n") == [
        *("import os", "", "def f(x):", '    return "not a docstring"  # why', ""),
        *("class C:", "    y = 1", ""),
    ]
