"""A multiple-choice task from held-out docstrings: which text continues this one?

Every item has the true continuation and three from other documents. The continuations of all items
take turns as wrong answers, each exactly three times, so that what is likely by itself, without the
context, wins at chance level: 25%. The lm-eval task is `tasks/doc_continuation.yaml`.
"""

import json
import random
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .corpus import Document

TASKS_FOLDER = Path(__file__).parent / "tasks"
TESTBED_TASK = "doc_continuation"
DATA_FILE = "doc_continuation.jsonl"

ITEMS = 400
ITEMS_PER_DOCUMENT = 8
CHOICES = 4
# About 65 and 13 tokens. A longer continuation makes the task harder, not easier: the spread of
# what is likely by itself grows faster than the evidence from the context.
CONTEXT_CHARACTERS = 200
CONTINUATION_CHARACTERS = 40
MIN_WORDS = 3
MIN_LETTERS = 0.72  # share of letters that tells prose from tables, formulas and code
LONG_WORD = re.compile(r"[A-Za-z_]{5,}")


@dataclass(frozen=True)
class Item:
    """One question; `choices[answer]` is what follows `context` after a space."""

    path: str  # document of the context
    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class _Passage:
    path: str
    context: str
    continuation: str


def make_items(documents: Iterable[Document]) -> list[Item]:
    """Make up to `ITEMS` questions, the same ones for the same documents.

    Answer positions are balanced: the i-th item's answer is i modulo the number of choices.

    Raises:
        ValueError: if there are too few documents with prose to draw wrong answers from.
    """
    generator = random.Random(0)
    passages = _choose(documents, generator)
    # Passages are grouped by document, at most ITEMS_PER_DOCUMENT each: a turn of that many places
    # or more, either way round, always leads to another document.
    turns = [len(passages) * turn // CHOICES for turn in range(1, CHOICES)]
    if not passages or turns[0] < ITEMS_PER_DOCUMENT:
        raise ValueError(f"{len(passages)} passages of prose are too few for {CHOICES} choices")
    questions = [
        (passage, [passages[(place + turn) % len(passages)].continuation for turn in turns])
        for place, passage in enumerate(passages)
    ]
    generator.shuffle(questions)  # so that the first n items are a fair sample
    made = []
    for number, (passage, wrong) in enumerate(questions):
        answer = number % CHOICES
        choices = (*wrong[:answer], passage.continuation, *wrong[answer:])
        made.append(Item(passage.path, passage.context, choices, answer))
    return made


def write_items(items: Iterable[Item], path: Path) -> None:
    """Write the items as JSON lines, the form that `tasks/doc_continuation.yaml` reads."""
    lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)
    path.write_text("".join(lines), encoding="utf-8")


def _choose(documents: Iterable[Document], generator: random.Random) -> list[_Passage]:
    """Draw passages evenly: one per document, then a second one, ...; grouped by document."""
    rounds: list[list[_Passage]] = [[] for _ in range(ITEMS_PER_DOCUMENT)]
    for document in documents:
        found = _passages(document)
        drawn = generator.sample(found, min(len(found), ITEMS_PER_DOCUMENT))
        for place, passage in enumerate(drawn):
            rounds[place].append(passage)
    chosen = [passage for drawn in rounds for passage in drawn][:ITEMS]
    return sorted(chosen, key=lambda passage: (passage.path, passage.context))


def _passages(document: Document) -> list[_Passage]:
    """Find where a paragraph of prose can be cut: context before, continuation after the cut."""
    passages = []
    start = 0
    for paragraph in document.text.split("\n\n"):
        end = start + len(paragraph)
        # The cut leaves at least a third of the paragraph as its nearest context.
        cut = document.text.find(" ", start + max(len(paragraph) // 3, 60), end)
        if cut >= CONTEXT_CHARACTERS:
            context = document.text[cut - CONTEXT_CHARACTERS : cut].partition(" ")[2]
            continuation = _whole_words(document.text[cut + 1 : end], CONTINUATION_CHARACTERS)
            if _is_prose(continuation) and _resumes(continuation, context):
                passages.append(_Passage(document.path, context, continuation))
        start = end + 2
    return passages


def _whole_words(text: str, characters: int) -> str:
    """Return the words that fit whole into the first `characters`; nothing if they are few."""
    begun = text[: characters + 1]
    if len(text) <= characters or len(begun.split()) <= MIN_WORDS:
        return ""
    return begun.rsplit(maxsplit=1)[0]


def _is_prose(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return letters > 0 and letters >= MIN_LETTERS * len(text)


def _resumes(continuation: str, context: str) -> bool:
    """Whether a reader has something to hold on to: a long word of the context comes back.

    Neither side may touch the cut with white space, so that one space joins them as in the text.
    """
    if continuation[0].isspace() or context[-1:].isspace():
        return False
    return bool(_long_words(continuation) & _long_words(context))


def _long_words(text: str) -> set[str]:
    return {word.lower() for word in LONG_WORD.findall(text)}
