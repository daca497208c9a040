"""The testbed's models on local tasks: our stage and lm-eval run by hand give identical numbers.

The items are our own, in the forms in which the data sets were released; by hand they are written
as the hub has them.
"""

import json

import by_hand
import lm_eval
import pytest
import torch

from thanos.config import RunBuilder, resolve
from thanos.models import load_model, load_tokenizer
from thanos.paths import PROJECT
from thanos.stages.evaluate import Inputs, evaluate

BATCH_SIZE = 5
COUNT = 20  # items per task
LETTERS = ("A", "B", "C", "D")
THINGS = ("array", "matrix", "tree", "graph", "file", "table")
CLAIMS = ("is sorted", "has no rows", "is empty", "has a name", "is a copy", "is symmetric", "ends")


def thing(number):
    return THINGS[number % len(THINGS)]


def claim(number):
    return CLAIMS[number % len(CLAIMS)]


def question(number, stem):
    """ARC and OpenBookQA: as released, and flat as on the hub."""
    texts = [f"the {claim(number + k)}" for k in range(4)]
    key = LETTERS[number % 4]
    choices = [{"text": text, "label": label} for text, label in zip(texts, LETTERS, strict=True)]
    original = {
        "id": f"q{number}",
        "question": {"stem": f"The {thing(number)}?", "choices": choices},
        "answerKey": key,
    }
    flat = {"text": texts, "label": list(LETTERS)}
    return original, {stem: f"The {thing(number)}?", "choices": flat, "answerKey": key}


def boolq(number):
    shared = {"passage": f"The {thing(number)} {claim(number)}.", "question": "is it a copy"}
    return {**shared, "label": number % 2 == 1, "idx": number}, {**shared, "label": number % 2}


def rte(number):
    premise, hypothesis = f"The {thing(number)} is new.", f"It {claim(number)}."
    label = number % 2
    name = ("entailment", "not_entailment")[label]
    return (
        {"premise": premise, "hypothesis": hypothesis, "label": name, "idx": number},
        {"sentence1": premise, "sentence2": hypothesis, "label": label},
    )


def same(row):
    return row, row


def winogrande(number):
    one, other = thing(number), thing(number + 1)
    sentence = f"The {one} holds the {other}, because the _ {claim(number)}."
    return same(
        {"sentence": sentence, "option1": one, "option2": other, "answer": str(1 + number % 2)}
    )


def piqa(number):
    goal = f"sort the {thing(number)}"
    return same({"goal": goal, "sol1": "call sort", "sol2": "call copy", "label": number % 2})


def hellaswag(number):
    endings = [f"{claim(number + k)} [step] again." for k in range(4)]
    return same(
        {
            "ind": number, "activity_label": "Arrays", "ctx_a": f"A {thing(number)} is made.",
            "ctx_b": "then it", "endings": endings, "label": number % 4,
        }
    )  # fmt: skip


# Task: file in the mirror, lm-eval's definition, the split it scores, item by number.
TASKS = {
    "winogrande": ("dev.jsonl", "winogrande/default.yaml", "validation", winogrande),
    "boolq": ("boolq_val.jsonl", "super_glue/boolq/default.yaml", "validation", boolq),
    "piqa": ("piqa_valid_rebuilt.jsonl", "piqa/piqa.yaml", "validation", piqa),
    "hellaswag": ("hellaswag_val.jsonl", "hellaswag/hellaswag.yaml", "validation", hellaswag),
    "rte": ("rte_val.jsonl", "glue/rte/default.yaml", "validation", rte),
    "arc_easy": (
        "ARC-Easy-Test.jsonl", "arc/arc_easy.yaml", "test", lambda n: question(n, "question"),
    ),
    "arc_challenge": (
        "ARC-Challenge-Test.jsonl", "arc/arc_challenge.yaml", "test",
        lambda n: question(n, "question"),
    ),
    "openbookqa": (
        "openbookqa_test.tsv", "openbookqa/openbookqa.yaml", "test",
        lambda n: question(n, "question_stem"),
    ),
}  # fmt: skip
ARTICLES = [
    " = Arrays = \n \n An array has a @-@ shape , and rows . \n \n = = Views = = \n"
    " \n A view 's data ( no copy ) . \n ",
    " = Trees = \n \n A tree has nodes : many of them . \n ",
]


def table_line(row):
    """A line of the official table of OpenBookQA."""
    choices = " ".join(f"({c['label']}) {c['text']}" for c in row["question"]["choices"])
    stem = row["question"]["stem"]
    return f"{row['id']}\t{stem}\t{choices}\t{stem} {choices}\t{row['answerKey']}\n"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    (folder / "zeroshot").mkdir()
    for file, _, _, item in TASKS.values():
        rows = [item(number)[0] for number in range(COUNT)]
        if file.endswith(".tsv"):
            text = "ID\tStem\tChoices\tComplete\tKey\n" + "".join(map(table_line, rows))
        else:
            text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "zeroshot" / file).write_text(text)
    (folder / "wikitext2").mkdir()
    (folder / "wikitext2" / "wiki.test.raw").write_text(" \n" + "\n".join(ARTICLES))
    return folder


@pytest.fixture(scope="module", params=["doc-llama", "doc-opt"])
def testbed(request):
    folder = PROJECT / "thanos" / "testbed" / "models" / request.param
    return request.param, load_model(folder, dtype=torch.float32), load_tokenizer(folder)


def evaluate_tasks(folder, given, items=None):
    """What our stage measures of a dense model."""
    given = [*given, "method=dense", "evaluation.corpora=[]", "device=cpu"]
    run = RunBuilder().run(resolve(given))
    return evaluate(run.evaluation, run.place, Inputs(None, (), items, folder / "parts"))


def test_identical_numbers(testbed, mirror, tmp_path, monkeypatch):
    name, model, tokenizer = testbed
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for task, (_, file, scored, item) in TASKS.items():
        rows = [item(number)[1] for number in range(COUNT)]
        by_hand.write_task(tmp_path, task, file, scored, rows)
    pages = [{"page": page} for page in ARTICLES]
    by_hand.write_task(tmp_path, "wikitext", "wikitext/wikitext.yaml", "test", pages)
    names = [*TASKS, "wikitext"]
    given = [f"model={name}", f"mirror={mirror}", f"evaluation.task_batch_size={BATCH_SIZE}"]
    given += [f"evaluation.tasks=[{','.join(names)}]", "evaluation.limit=null"]

    ours = evaluate_tasks(tmp_path, given)
    # One task at a time: requests are padded to the longest of their batch.
    expected = {
        task: by_hand.evaluate(model, tokenizer, tmp_path, [task], BATCH_SIZE) for task in names
    }

    assert list(ours["tasks"]) == list(TASKS)
    for task, result in ours["tasks"].items():
        theirs = expected[task]["results"][task]
        assert result["acc"] == 100 * theirs["acc,none"], task
        assert result["acc_stderr"] == 100 * theirs["acc_stderr,none"], task
        normalized = theirs.get("acc_norm,none")
        assert result["acc_norm"] == (None if normalized is None else 100 * normalized), task
        assert result["n"] == expected[task]["n-samples"][task]["effective"] == COUNT
        assert result["version"] == str(expected[task]["versions"][task])
        assert (result["harness"], result["limit"]) == (lm_eval.__version__, None)
    assert len({result["acc"] for result in ours["tasks"].values()}) > 1
    text, theirs = ours["texts"]["wikitext"], expected["wikitext"]["results"]["wikitext"]
    for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte"):
        assert text[metric] == theirs[f"{metric},none"]
    assert text["n"] == 2


def test_the_testbeds_own_task(testbed, tmp_path, monkeypatch):
    from thanos.stages.continuations import write_task
    from thanos.testbed.continuations import TASKS_FOLDER

    name, model, tokenizer = testbed
    items = tmp_path / "items"
    write_task(items)
    monkeypatch.chdir(items)  # by hand, lm-eval looks for the data file here
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    given = [f"model={name}", "evaluation=testbed", "evaluation.limit=24"]
    given += [f"evaluation.task_batch_size={BATCH_SIZE}"]

    ours = evaluate_tasks(tmp_path, given, items)["tasks"]["doc_continuation"]
    by = by_hand.evaluate(model, tokenizer, TASKS_FOLDER, ["doc_continuation"], BATCH_SIZE, 24)[
        "results"
    ]["doc_continuation"]

    assert ours["acc"] == 100 * by["acc,none"]
    assert ours["acc_stderr"] == 100 * by["acc_stderr,none"]
    assert (ours["n"], ours["limit"]) == (24, 24)
    assert 25 < ours["acc"] < 100
