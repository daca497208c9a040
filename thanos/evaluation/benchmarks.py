"""The paper's zero-shot tasks as lm-eval defines them, with their data from a mirror folder.

Templates, metrics and versions are always lm-eval's own; a mirror only replaces where the rows come
from. It holds `zeroshot/<task>.jsonl` with the split that lm-eval scores, in the columns of the
hub's data set, or the data set's original release under a name that `RELEASES` gives.

`wikitext` is lm-eval's perplexity per word of whole, detokenised articles: another quantity than
the perplexity of the corpus `wikitext2`, and never in one column with it.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.files import read_json_lines, read_lines, read_text
from ..errors import UserError
from ..untrusted import inside

Row = dict[str, Any]

# Where lm-eval keeps a task, below its own tasks folder. Reading these few files replaces its
# scan of every built-in task, which takes 10 to 17 seconds.
DEFINITIONS = {
    "winogrande": "winogrande/default.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "rte": "glue/rte/default.yaml",
    "wikitext": "wikitext/wikitext.yaml",
}
# Names under which the original releases are commonly kept; the first that exists is read.
RELEASES = {
    "winogrande": ("zeroshot/dev.jsonl", "zeroshot/winogrande_dev_rebuilt.jsonl"),
    "openbookqa": ("zeroshot/openbookqa_test.tsv",),
    "boolq": ("zeroshot/boolq_val.jsonl",),
    "piqa": ("zeroshot/piqa_valid_rebuilt.jsonl",),
    "hellaswag": ("zeroshot/hellaswag_val.jsonl",),
    "arc_easy": ("zeroshot/ARC-Easy-Test.jsonl",),
    "arc_challenge": ("zeroshot/ARC-Challenge-Test.jsonl",),
    "rte": ("zeroshot/rte_val.jsonl",),
    "wikitext": ("wikitext2/wiki.test.raw",),
}
FOLDER = "zeroshot"


def file_of_task(folder: Path, task: str, ending: str) -> Path:
    """The file in a folder that has a task's name, there or not.

    Raises:
        UserError: the name leads out of the folder.
    """
    try:
        return inside(folder, f"{task}{ending}")
    except ValueError as error:
        raise UserError(f"evaluation.tasks: {task!r:.80} names no task ({error})") from error


def task_file(task: str, mirror: Path) -> Path | None:
    """The mirror's file of a task's rows, if it has one."""
    return next((file for file in _files(task, mirror) if file.is_file()), None)


def mirrored_rows(task: str, mirror: Path) -> list[Row]:
    """Return a task's rows, in the hub's columns, from the mirror.

    Raises:
        UserError: if the mirror has no file for the task, or the file lacks a column.
    """
    path = task_file(task, mirror)
    if path is None:
        names = (str(file.relative_to(mirror)) for file in _files(task, mirror))
        raise UserError(
            f"mirror {mirror} has no {' or '.join(names)} for task {task!r}; run "
            "`snakemake mirror` where there is network, or export the task's scored split there "
            "as JSON lines"
        )
    rows = _READERS.get(path.suffix, read_json_lines)(path)
    convert = _CONVERSIONS.get(task, _as_it_is)
    try:
        return [convert(row) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: a row is neither in the hub's columns nor in the original form of {task} "
            f"({type(error).__name__}: {error}); export it again"
        ) from error


def _files(task: str, mirror: Path) -> list[Path]:
    released = (mirror / name for name in RELEASES.get(task, ()))
    return [file_of_task(mirror / FOLDER, task, ".jsonl"), *released]


def _as_it_is(row: Row) -> Row:
    return row


def _question(row: Row, stem: str) -> Row:
    """ARC and OpenBookQA: {question: {stem, choices: [{text, label}]}} becomes flat columns."""
    if not isinstance(row.get("question"), dict):
        return row
    choices = row["question"]["choices"]
    return {
        stem: row["question"]["stem"],
        "choices": {key: [choice[key] for choice in choices] for key in ("text", "label")},
        "answerKey": row["answerKey"],
    }


def _boolq(row: Row) -> Row:
    answer = row["label"] if "label" in row else row["answer"]
    label = {"false": 0, "true": 1}[str(answer).lower()] if answer not in (0, 1) else int(answer)
    return {"passage": row["passage"], "question": row["question"], "label": label}


def _rte(row: Row) -> Row:
    if "premise" not in row:
        return row
    label = ("entailment", "not_entailment").index(row["label"])
    return {"sentence1": row["premise"], "sentence2": row["hypothesis"], "label": label}


def _openbookqa_table(path: Path) -> list[Row]:
    """Read the official table: id, stem, "(A) ... (B) ...", complete question, answer key."""
    rows = []
    for number, line in enumerate(read_lines(path)[1:], start=2):
        fields = line.split("\t")
        if len(fields) != 5:
            raise UserError(f"{path}, line {number}: expected 5 columns, found {len(fields)}")
        choices = re.findall(r"\(([A-D])\) (.*?)(?= \([A-D]\) |$)", fields[2])
        rows.append(
            {
                "question_stem": fields[1],
                "choices": {
                    "text": [text for _, text in choices],
                    "label": [label for label, _ in choices],
                },
                "answerKey": fields[4].strip(),
            }
        )
    return rows


def _wikitext_articles(path: Path) -> list[Row]:
    """Cut the raw test split into articles, as the hub's document-level data set does.

    An article starts at a heading of the first level, ` = Title = `.
    """
    articles: list[list[str]] = [[]]
    for line in read_text(path).split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            articles.append([])
        articles[-1].append(line)
    pages = ["\n".join(lines) for lines in articles]
    return [{"page": page} for page in pages if page.strip()]


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".tsv": _openbookqa_table,
    ".raw": _wikitext_articles,
}
_CONVERSIONS: dict[str, Callable[[Row], Row]] = {
    "openbookqa": lambda row: _question(row, "question_stem"),
    "arc_easy": lambda row: _question(row, "question"),
    "arc_challenge": lambda row: _question(row, "question"),
    "boolq": _boolq,
    "rte": _rte,
}
