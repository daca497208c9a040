"""Texts to contrast the docstrings with as calibration data: other genre, or other order of words.

Of the files in one of the corpus' splits, so that nothing of the held-out text is in what is
calibrated on; every installation has them.
"""

import ast
import random
from collections.abc import Iterator

from .corpus import MIN_DOCUMENT_CHARACTERS, Document, extract, source_files, split_of

SHUFFLE_SEED = 0
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def source_code(split: str) -> Iterator[Document]:
    """Yield the code of a split's files, with its comments and without its docstrings."""
    for path, file in source_files():
        if split_of(path) != split:
            continue
        try:
            text = without_docstrings(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # templates that only look like source
            continue
        if len(text) >= MIN_DOCUMENT_CHARACTERS:
            yield Document(path, split, text)


def shuffled_words() -> Iterator[Document]:
    """Yield the docstrings with the words of each document in random order, always the same.

    The words and their frequencies are those of the docstrings; context is gone.
    """
    generator = random.Random(SHUFFLE_SEED)
    for document in extract("calibration"):
        if document.split == "calibration":
            words = document.text.split()
            generator.shuffle(words)
            yield Document(document.path, document.split, " ".join(words))


def without_docstrings(source: str) -> str:
    """The lines of a Python file that belong to no docstring, without trailing space.

    Raises:
        SyntaxError: if it is no Python.
    """
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            dropped |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = (line.rstrip() for line in source.split("\n"))
    return "\n".join(line for number, line in enumerate(lines, start=1) if number not in dropped)
