"""The text sources: what each one gives for calibration and for evaluation.

| source | calibration documents | evaluation text |
|---|---|---|
| docstrings | the corpus' calibration split, by file | its held-out split, by blank lines |
| code | source code of the calibration split's files, no docstrings | of the held-out files |
| shuffled | the calibration split with each document's words in random order | – |
| text | the whole file at `path` | the same |
| c4 | documents of the first English training shard | the first 1,100 of validation, by spaces |
| wikitext2 | the raw training split, by two newlines | the raw test split, by two newlines |
| ptb | the training sentences, by spaces | the test sentences, by spaces |

"By" is what joins the parts to one text. The first three need nothing but the installed packages.
The last three come from the hub at a pinned revision; without network they are read from `path`
(that very file) or from `mirror`, a folder with the files that `Split.mirrored` names:
`c4/c4-train.00000-of-01024.json.gz`, `wikitext2/wiki.test.raw`, `ptb/ptb.test.txt` and so on. A
`.txt` file in place of a C4 shard has one document per line.
"""

import itertools
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import UserError
from .files import hub_file, json_object, read_lines, read_text
from .streams import LineDocuments, ParquetDocuments

SOURCES = ("docstrings", "code", "text", "c4", "wikitext2", "ptb")
CONTRASTS = ("shuffled",)  # for calibration only
DOWNLOADS = ".downloads"  # below a mirror, until a file is whole
C4_VALIDATION_DOCUMENTS = 1100
C4_VALIDATION_WINDOWS = 256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """One split of a public data set: where it is on the hub and in a mirror."""

    repository: str
    revision: str
    filename: str  # in the repository
    column: str  # that holds the text
    mirrored: tuple[str, ...]  # accepted names below the mirror, best first


def _c4(filename: str, plain: str) -> Split:
    revision = "1588ec454efa1a09f29cd18ddd04fe05fc8653a2"
    return Split(
        "allenai/c4", revision, f"en/{filename}", "text", (f"c4/{filename}", f"c4/{plain}")
    )


def _wikitext2(split: str) -> Split:
    revision = "b08601e04326c79dfdd32d625aee71d232d685c3"
    filename = f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet"
    mirrored = (f"wikitext2/wiki.{split}.raw", f"wikitext2/{split}-00000-of-00001.parquet")
    return Split("Salesforce/wikitext", revision, filename, "text", mirrored)


def _ptb(split: str) -> Split:
    # The data set is a loading script; the hub's own conversion is the one form that still loads.
    filename = f"penn_treebank/{split}/0000.parquet"
    mirrored = (f"ptb/ptb.{split}.txt", f"ptb/{split}.parquet")
    return Split(
        "ptb-text-only/ptb_text_only", "refs/convert/parquet", filename, "sentence", mirrored
    )


CALIBRATION = {
    "c4": _c4("c4-train.00000-of-01024.json.gz", "c4-train.txt"),
    "wikitext2": _wikitext2("train"),
    "ptb": _ptb("train"),
}
EVALUATION = {
    "c4": _c4("c4-validation.00000-of-00008.json.gz", "c4-validation.txt"),
    "wikitext2": _wikitext2("test"),
    "ptb": _ptb("test"),
}


def calibration_documents(
    source: str, path: str | Path | None = None, mirror: str | Path | None = None
) -> Sequence[str]:
    """Return the documents that calibration windows are drawn from; those of C4 stay in their file.

    Args:
        source: one of `SOURCES` or `CONTRASTS`.
        path: the file to read: required by `text`, in place of the hub's file for the public sets.
        mirror: folder with copies of the public sets, for machines without network.

    Raises:
        UserError: unknown source; missing, empty or unreadable file; neither network nor mirror.
    """
    _check_source(source, "calibration", path)
    if source == "docstrings":
        return _docstrings("calibration")
    if source in ("code", *CONTRASTS):
        return _contrast(source, "calibration")
    if source == "text":
        return [read_text(Path(str(path)))]
    rows = _rows(source, CALIBRATION[source], path, mirror)
    return _documents(source, rows)


def evaluation_text(
    source: str, path: str | Path | None = None, mirror: str | Path | None = None
) -> str:
    """Return the text on which perplexity is measured; arguments and errors as for calibration."""
    _check_source(source, "evaluation", path)
    if source == "docstrings":
        return "\n\n".join(_docstrings("heldout"))
    if source == "code":
        return "\n\n".join(_contrast(source, "heldout"))
    if source == "text":
        return read_text(Path(str(path)))
    rows = _rows(source, EVALUATION[source], path, mirror)
    if source == "c4":
        first = list(itertools.islice(rows, C4_VALIDATION_DOCUMENTS))
        if len(first) < C4_VALIDATION_DOCUMENTS:
            logger.warning(
                "c4: %d documents, the protocol takes %d: not comparable with published values",
                len(first),
                C4_VALIDATION_DOCUMENTS,
            )
        return " ".join(first)
    return _documents(source, rows)[0]


def fetch_split(split: Split, mirror: Path) -> Path:
    """Fetch a public data set's file into the mirror, if it is not there, and return it.

    Raises:
        UserError: the hub does not give it.
    """
    suffix = Path(split.filename).suffix
    file = mirror / next(name for name in split.mirrored if Path(name).suffix == suffix)
    if not file.is_file():
        downloads = mirror / DOWNLOADS
        fetched = hub_file(
            split.repository,
            split.filename,
            split.revision,
            remedy="run the same command again",
            local_dir=downloads,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        fetched.replace(file)
        shutil.rmtree(downloads)
    return file


def public_file(source: str, use: str, mirror: str | Path | None) -> Path | str | None:
    """Where a public source's text comes from: the mirror's file, or `repository@revision`.

    Args:
        source: its name.
        use: `calibration` or `evaluation`.
        mirror: as everywhere.

    Returns:
        None for a source that is no public data set: its text is in the installed packages.

    Raises:
        UserError: the mirror has no such file.
    """
    split = {"calibration": CALIBRATION, "evaluation": EVALUATION}[use].get(source)
    if split is None:
        return None
    if mirror is None:
        return f"{split.repository}@{split.revision}"
    return _mirrored(source, split, Path(mirror))


def corpus_packages() -> tuple[str, ...]:
    """The distributions whose installed files the sources without a file are made from."""
    from ..testbed.corpus import DISTRIBUTIONS

    return DISTRIBUTIONS


def evaluation_max_windows(source: str) -> int | None:
    """Return how many windows of the source's evaluation text are used; None means all."""
    return C4_VALIDATION_WINDOWS if source == "c4" else None


def _documents(source: str, rows: Sequence[str]) -> Sequence[str]:
    match source:
        case "wikitext2":
            return ["\n\n".join(rows)]
        case "ptb":
            return [" ".join(rows)]
        case _:
            return rows


def _check_source(source: str, use: str, path: str | Path | None) -> None:
    key, known = {
        "calibration": ("calibration.source", (*SOURCES, *CONTRASTS)),
        "evaluation": ("evaluation.corpora", SOURCES),
    }[use]
    if source not in known:
        raise UserError(f"{key}: unknown {source!r}; known are {', '.join(known)}")
    if source == "text" and path is None:
        raise UserError(f"{use}.path: source 'text' needs the path of a UTF-8 text file")


def _docstrings(split: str) -> list[str]:
    from ..testbed.corpus import extract

    try:
        return [document.text for document in extract(split) if document.split == split]
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from error


def _contrast(source: str, split: str) -> list[str]:
    from ..testbed.contrast import shuffled_words, source_code

    documents = source_code(split) if source == "code" else shuffled_words()
    try:
        return [document.text for document in documents]
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from error


def _rows(
    source: str, split: Split, path: str | Path | None, mirror: str | Path | None
) -> Sequence[str]:
    if path is not None:
        file = Path(path)
    elif mirror is not None:
        file = _mirrored(source, split, Path(mirror))
    else:
        file = hub_file(
            split.repository,
            split.filename,
            split.revision,
            remedy=f"set mirror to a folder that holds {split.mirrored[0]}",
        )
    return _reader(file, split)(file)


def mirrored_file(split: Split, mirror: Path) -> Path | None:
    """The mirror's file of a split, if it has one."""
    return next((mirror / name for name in split.mirrored if (mirror / name).is_file()), None)


def _mirrored(source: str, split: Split, mirror: Path) -> Path:
    if (file := mirrored_file(split, mirror)) is not None:
        return file
    raise UserError(
        f"mirror {mirror} has no {' or '.join(split.mirrored)} for source {source!r}; copy the "
        "file there, or run `snakemake mirror` where there is network"
    )


def _reader(file: Path, split: Split) -> Callable[[Path], Sequence[str]]:
    """Choose by the file's suffix how the rows of the hub's data set are had from it."""
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return lambda path: ParquetDocuments(path, split.column)
    if name.endswith((".json", ".jsonl")):
        return lambda path: LineDocuments(path, partial(_column, split.column))
    if split.repository == "Salesforce/wikitext":
        return _wikitext_rows
    return lambda path: LineDocuments(path, _stripped)


def _column(column: str, path: Path, number: int, line: str) -> str:
    text = json_object(path, number, line).get(column)
    if not isinstance(text, str):
        raise UserError(f"{path}, line {number}: it has no text {column!r}; fetch the file again")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{path}, line {number}: its {column!r} has half a character (a lone surrogate, "
                f"place {error.start}); mend or remove the line"
            ) from error
    return text


def _stripped(path: Path, number: int, line: str) -> str:
    return line.strip()


def _wikitext_rows(path: Path) -> list[str]:
    # As the hub's data set has them: a line keeps its newline, a blank line is an empty row.
    return [f"{line}\n" if line.strip() else "" for line in read_lines(path)]
