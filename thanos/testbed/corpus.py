"""The docstrings of the locked dependencies as a text corpus.

Every installation has this text, so the default experiments need no network. Extraction is
deterministic: each file belongs to a split by the hash of its path, splits are read in the order of
`SPLITS` and files in path order, and a paragraph that was seen before is dropped. Held-out text
therefore never recurs in training text, and the small splits are extracted without parsing the
large one. The corpus hash identifies the text and so notices a changed lock file.
"""

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Packages with long, carefully written docstrings; all are pinned by the lock file.
PACKAGES = (
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "sympy",
    "torch",
)
DISTRIBUTIONS = tuple({"sklearn": "scikit-learn"}.get(name, name) for name in PACKAGES)
SPLITS = ("heldout", "calibration", "train")
# Share of files, in percent, that the first two splits get; the rest is for training.
HELDOUT_PERCENT = 4
CALIBRATION_PERCENT = 4
MIN_DOCUMENT_CHARACTERS = 400


@dataclass(frozen=True)
class Document:
    """All docstrings of one source file, joined by blank lines."""

    path: str  # relative to site-packages, with forward slashes
    split: str
    text: str


def split_of(path: str) -> str:
    """Return the split a file belongs to: a function of its path alone."""
    bucket = int(hashlib.sha256(path.encode()).hexdigest(), 16) % 100
    if bucket < HELDOUT_PERCENT:
        return "heldout"
    if bucket < HELDOUT_PERCENT + CALIBRATION_PERCENT:
        return "calibration"
    return "train"


def source_files() -> list[tuple[str, Path]]:
    """The Python files of `PACKAGES` without their tests, as (path in site-packages, file).

    Raises:
        ModuleNotFoundError: if one of `PACKAGES` is not installed.
    """
    files = []
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(
                f"package {package!r} of the docstring corpus is not installed; run `make setup`"
            )
        root = Path(spec.origin).parent
        for file in sorted(root.rglob("*.py")):
            relative = file.relative_to(root.parent)
            if not {"tests", "testing", "__pycache__"} & set(relative.parts):
                files.append((relative.as_posix(), file))
    return files


def _docstrings(file: Path) -> list[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # templates that only look like source
        return []
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = (
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, documented)
    )
    return [inspect.cleandoc(docstring) for docstring in found if docstring]


def extract(last_split: str = "train") -> Iterator[Document]:
    """Yield the corpus, one document per source file, split by split up to `last_split`.

    Raises:
        ModuleNotFoundError: if one of `PACKAGES` is not installed.
    """
    files = source_files()
    seen: set[str] = set()
    for split in SPLITS[: SPLITS.index(last_split) + 1]:
        for path, file in files:
            if split_of(path) != split:
                continue
            kept = []
            for paragraph in "\n\n".join(_docstrings(file)).split("\n\n"):
                words = " ".join(paragraph.split())
                if words and words not in seen:
                    seen.add(words)
                    kept.append(paragraph.rstrip())
            text = "\n\n".join(kept)
            if len(text) >= MIN_DOCUMENT_CHARACTERS:
                yield Document(path, split, text)


def corpus_hash(documents: Iterable[Document]) -> str:
    """Return the sha256 over paths and texts, in order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.path.encode() + b"\0" + document.text.encode() + b"\0")
    return digest.hexdigest()
