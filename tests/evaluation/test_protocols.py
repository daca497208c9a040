"""Each perplexity protocol by our stage and by an independent script of a few lines."""

import gzip
import hashlib
import json
import math
import random
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thanos.config import RunBuilder, resolve
from thanos.paths import PROJECT
from thanos.stages import corpora, evaluate
from thanos.testbed.corpus import extract

TESTBED = PROJECT / "thanos" / "testbed" / "models"
CONTEXT = 32
# The stage sums in another order and streams block by block: single precision over 32 positions.
TOLERANCE = 1e-6
WORDS = (
    *("the", "array", "of", "shape", "returns", "a", "new", "view", "and", "copies", "data"),
    *("along", "each", "axis", "in", "order", "to", "compute", "function", "values", "where"),
    *("parameter", "matrix", "element", "sum", "mean", "over", "rows", "columns", "index", "type"),
)


def sentence(generator, length):
    return " ".join(generator.choices(WORDS, k=length))


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Small corpora of our own in the public sets' original forms."""
    folder = tmp_path_factory.mktemp("mirror")
    generator = random.Random(0)
    for name in ("wikitext2", "ptb", "c4"):
        (folder / name).mkdir()
    articles = [
        f" = {sentence(generator, 2)} = \n \n {sentence(generator, 40)} \n"
        f" {sentence(generator, 9)} \n \n"
        for _ in range(8)
    ]
    (folder / "wikitext2" / "wiki.test.raw").write_text(" \n" + "".join(articles))
    lines = [f" {sentence(generator, 12)} \n" for _ in range(40)]
    (folder / "ptb" / "ptb.test.txt").write_text("".join(lines))
    documents = [{"text": f"{sentence(generator, 9)}.", "url": "x"} for _ in range(1300)]
    with gzip.open(folder / "c4" / "c4-validation.00000-of-00008.json.gz", "wt") as file:
        file.write("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "own.txt").write_text("\n\n".join(sentence(generator, 60) for _ in range(9)) + "\n")
    return folder


# The texts, read as the papers' programs read them from the hub's rows.
def wikitext2(mirror):
    lines = (mirror / "wikitext2" / "wiki.test.raw").read_text().split("\n")[:-1]
    return "\n\n".join(line + "\n" if line.strip() else "" for line in lines)


def ptb(mirror):
    return " ".join(line.strip() for line in (mirror / "ptb" / "ptb.test.txt").open())


def c4(mirror):
    with gzip.open(mirror / "c4" / "c4-validation.00000-of-00008.json.gz", "rt") as file:
        return " ".join([json.loads(line)["text"] for line in file][:1100])


def text(mirror):
    return (mirror / "own.txt").read_text()


def docstrings(_):
    documents = [document for document in extract("heldout") if document.split == "heldout"]
    return "\n\n".join(document.text for document in documents)


def by_hand(folder, text, most):
    """Windows one after another, the mean of their mean losses, the exponent."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    windows = [
        ids[:, start : start + CONTEXT]
        for start in range(0, ids.shape[1] - CONTEXT + 1, CONTEXT)
    ][:most]  # fmt: skip
    with torch.no_grad():
        losses = [model(window, labels=window).loss.double().item() for window in windows]
    return math.exp(sum(losses) / len(losses)), len(windows)


@pytest.mark.parametrize(
    ("name", "read", "most"),
    [
        *((name, read, None) for name in ("doc-llama", "doc-opt") for read in (wikitext2, ptb)),
        ("doc-llama", c4, 256),
        ("doc-opt", text, None),
        pytest.param("doc-llama", docstrings, 24, marks=pytest.mark.slow),
    ],
)
def test_the_number_is_that_of_an_independent_script(
    mirror, tmp_path, monkeypatch, name, read, most
):
    corpus = read.__name__
    given = [f"model={name}", "method=dense", f"model.context={CONTEXT}", "device=cpu"]
    given += [f"evaluation={corpus if corpus != 'docstrings' else 'perplexity'}"]
    given += [f"mirror={mirror}", "evaluation.batch_size=3"]
    given += [f"evaluation.path={mirror / 'own.txt'}"] if corpus == "text" else []
    given += [f"evaluation.max_windows={most}"] if corpus == "docstrings" else []
    run = RunBuilder().run(resolve(given))

    def stage(module, spec, *arguments):
        told = [json.dumps(spec.to_json()), f"--place={json.dumps(run.place.to_json())}"]
        monkeypatch.setattr(sys, "argv", [module.__name__, *told, *map(str, arguments)])
        module.main()

    windows, output = tmp_path / "windows", tmp_path / "evaluation.json"
    stage(corpora, run.evaluation.windows[0], "--output", windows)
    parts = ("--parts", tmp_path / "parts")
    stage(evaluate, run.evaluation, "--windows", windows, *parts, "--output", output)
    found = json.loads(output.read_text())
    ours = found["corpora"][corpus]

    expected, windows = by_hand(TESTBED / name, read(mirror), most)
    assert ours["perplexity"] == pytest.approx(expected, rel=TOLERANCE)
    assert (ours["windows"], ours["seqlen"]) == (windows, CONTEXT)
    assert windows > 3  # several batches, the last one not full
    assert ours["corpus_sha256"] == hashlib.sha256(read(mirror).encode()).hexdigest()
    assert len(ours["tokenizer_sha256"]) == len(ours["tokens_sha256"]) == 64
    assert (found["tasks"], found["texts"]) == ({}, {})
    size = found["size"]
    stored = (TESTBED / name / "model.safetensors").stat().st_size
    assert 0.99 * stored < size["bytes"]["dense"] < stored  # all but the header
    assert size["parameters"]["nonzero"] <= size["parameters"]["total"]
