"""The public data sets of the paper's suite as they are published, with little in them."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

ITEMS = 12  # of each split of a task
C4_DOCUMENTS = 3000
_WORDS = 3000  # of WikiText-2 and PTB, in each split


def write_texts(folder: Path, documents: list[str]) -> None:
    """Lay out C4, WikiText-2, PTB and the seven tasks' data below a hub's `datasets`."""
    rng = random.Random(0)
    words = " ".join(documents).split()
    _c4(folder / "allenai" / "c4" / "en", words, rng)
    wikitext = folder / "Salesforce" / "wikitext" / "wikitext-2-raw-v1"
    ptb = folder / "ptb-text-only" / "ptb_text_only" / "penn_treebank"
    for split in ("train", "validation", "test"):
        rows = ["", " = Title = \n", "", *_lines(words, rng, " {} . \n")]
        _table(wikitext / f"{split}-00000-of-00001.parquet", [{"text": row} for row in rows])
        sentences = [{"sentence": line} for line in _lines(words, rng, "{}")]
        _table(ptb / split / "0000.parquet", sentences)
    for name, (configuration, item) in TASKS.items():
        _task(folder / name, configuration, item, words, rng)


def _phrase(words: list[str], rng: random.Random, least: int = 4, most: int = 12) -> str:
    start = rng.randrange(len(words) - most)
    return " ".join(words[start : start + rng.randrange(least, most)])


def _lines(words: list[str], rng: random.Random, form: str) -> list[str]:
    return [form.format(_phrase(words, rng, 10, 30)) for _ in range(_WORDS // 20)]


def _c4(folder: Path, words: list[str], rng: random.Random) -> None:
    """Shards as they are: one JSON object per line, documents of very different lengths."""
    folder.mkdir(parents=True)
    for name, count in (("train.00000-of-01024", C4_DOCUMENTS), ("validation.00000-of-00008", 300)):
        with gzip.open(folder / f"c4-{name}.json.gz", "wt", encoding="utf-8") as file:
            for n in range(count):
                length = min(9000, int(rng.lognormvariate(5.2, 1.2)))  # words; a median of 180
                start = rng.randrange(len(words))
                text = " ".join((words * 2)[start : start + length]) + " café 😀" * (n % 100 == 0)
                row = {"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.b/c"}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _question(words: list[str], rng: random.Random, key: str, labels: str) -> dict[str, Any]:
    choices = {"text": [_phrase(words, rng, 1, 4) for _ in labels], "label": list(labels)}
    stem = _phrase(words, rng)
    return {"id": stem[:8], key: stem, "choices": choices, "answerKey": rng.choice(labels)}


def _winogrande(words: list[str], rng: random.Random) -> dict[str, Any]:
    first, second = _phrase(words, rng, 1, 2), _phrase(words, rng, 1, 2)
    sentence = f"{_phrase(words, rng)} _ {_phrase(words, rng)}."
    answer = rng.choice("12")
    return {"sentence": sentence, "option1": first, "option2": second, "answer": answer}


def _openbookqa(words: list[str], rng: random.Random) -> dict[str, Any]:
    return _question(words, rng, "question_stem", "ABCD")


def _arc(words: list[str], rng: random.Random) -> dict[str, Any]:
    # Three to five choices; some questions number them.
    return _question(words, rng, "question", rng.choice(["ABCD", "ABC", "ABCDE", "1234"]))


def _boolq(words: list[str], rng: random.Random) -> dict[str, Any]:
    passage = _phrase(words, rng, 60, 120)
    return {"question": _phrase(words, rng), "passage": passage, "label": rng.randrange(2)}


def _piqa(words: list[str], rng: random.Random) -> dict[str, Any]:
    solutions = {f"sol{n}": _phrase(words, rng) for n in (1, 2)}
    return {"goal": _phrase(words, rng), **solutions, "label": rng.randrange(2)}


def _hellaswag(words: list[str], rng: random.Random) -> dict[str, Any]:
    first, second = _phrase(words, rng), _phrase(words, rng)
    return {
        "ind": rng.randrange(1000),
        "activity_label": "Removing ice from car",
        "ctx_a": first,
        "ctx_b": second,
        "ctx": f"{first} {second}",
        "endings": [f"[substeps] {_phrase(words, rng)}" for _ in range(4)],
        "label": rng.choice("0123"),
    }


# Repository, configurations (None for one without a name) and what makes an item.
TASKS = {
    "allenai/winogrande": (("winogrande_xl",), _winogrande),
    "allenai/openbookqa": (("main",), _openbookqa),
    "aps/super_glue": (("boolq",), _boolq),
    "baber/piqa": ((None,), _piqa),
    "Rowan/hellaswag": ((None,), _hellaswag),
    "allenai/ai2_arc": (("ARC-Easy", "ARC-Challenge"), _arc),
}


def _task(folder: Path, configurations: Any, item: Any, words: Any, rng: random.Random) -> None:
    described = []
    for configuration in configurations:
        below = configuration or "data"
        files = []
        for split in ("train", "validation", "test"):
            path = f"{below}/{split}-00000-of-00001.parquet"
            _table(folder / path, [item(words, rng) for _ in range(ITEMS)])
            files.append(f"  - split: {split}\n    path: {below}/{split}-*\n")
        described.append(
            f"- config_name: {configuration or 'default'}\n  data_files:\n{''.join(files)}"
        )
    head = f"---\nconfigs:\n{''.join(described)}---\n"
    (folder / "README.md").write_text(head, encoding="utf-8")


def _table(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)
