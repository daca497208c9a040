"""Documents in a file that is too large to be in memory: read in order, or one by its number.

The first shard of C4 is 0.8 GB of text, of which a calibration looks at a thousand documents. The
file is read once from end to end; on the way bookmarks are left in it, a few MiB apart, from which
any document is found again: for a packed file with the state of the unpacking, 40 KiB each.
"""

import bisect
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ..errors import UserError
from .files import check_file, told_if_damaged

_READ = 64 * 2**10  # bytes of the file at a time
_APART = 6 * 2**20  # bytes of text from one bookmark to the next
_ZIP_WITH_HEADER = 31  # what zlib calls the gzip format


class _Gzip:
    """Unpacks a gzip file of one or several members, piece by piece."""

    def __init__(self, member: Any = None) -> None:
        self._member = member or zlib.decompressobj(_ZIP_WITH_HEADER)

    def __call__(self, packed: bytes) -> bytes:
        text: bytes = self._member.decompress(packed)
        while self._member.eof and (following := self._member.unused_data.lstrip(b"\0")):
            self._member = zlib.decompressobj(_ZIP_WITH_HEADER)
            text += self._member.decompress(following)
        return text

    def copy(self) -> "_Gzip":
        return _Gzip(self._member.copy())

    def end(self) -> None:
        if not self._member.eof:
            raise EOFError("it ends in the middle")


class _Plain:
    """A file that is not packed."""

    def __call__(self, text: bytes) -> bytes:
        return text

    def copy(self) -> "_Plain":
        return self

    def end(self) -> None:
        pass


@dataclass(frozen=True)
class _Bookmark:
    """A place between two pieces of the file."""

    documents: int  # before it
    lines: int
    offset: int  # in the file
    rest: bytes  # of the line that the place is in
    unpack: _Gzip | _Plain


class _Documents(Sequence[str], ABC):
    """Documents of which each is found by its number, from 0."""

    @abstractmethod
    def _at(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._at(index)


class LineDocuments(_Documents):
    """The documents of a UTF-8 file with one in every line that is not blank.

    Args:
        path: of the file; one that ends in `.gz` is unpacked.
        parse: a document from the file, the number of a line, from 1, and the line.

    Raises:
        UserError: there is no such file; when it is read: it is damaged, empty or not UTF-8.
    """

    def __init__(self, path: Path, parse: Callable[[Path, int, str], str]) -> None:
        check_file(path)
        self._path = path
        self._parse = parse
        self._length = 0
        unpack = _Gzip() if path.suffix == ".gz" else _Plain()
        self._bookmarks = [_Bookmark(0, 0, 0, b"", unpack)]

    def __iter__(self) -> Iterator[str]:
        bookmarks = self._bookmarks[:1]
        count = 0
        for document in self._from(bookmarks[0], bookmarks):
            count += 1
            yield document
        if not count:
            raise UserError(f"{self._path} is empty; give a file with text")
        self._length, self._bookmarks = count, bookmarks

    def __len__(self) -> int:
        if not self._length:
            for _ in self:
                pass
        return self._length

    def _at(self, index: int) -> str:
        near = bisect.bisect(self._bookmarks, index, key=lambda mark: mark.documents) - 1
        mark = self._bookmarks[near]
        line, number = next(self._lines_from(mark, skip=index - mark.documents))
        return self._parse(self._path, number, line)

    def _from(self, mark: _Bookmark, bookmarks: list[_Bookmark]) -> Iterator[str]:
        for line, number in self._lines_from(mark, bookmarks=bookmarks):
            yield self._parse(self._path, number, line)

    def _lines_from(
        self, mark: _Bookmark, *, skip: int = 0, bookmarks: list[_Bookmark] | None = None
    ) -> Iterator[tuple[str, int]]:
        """Lines that are not blank, with their numbers, leaving bookmarks in the list if given."""
        number, documents = mark.lines, mark.documents
        since = 0
        for lines, place in self._pieces(mark):
            for line in lines:
                number += 1
                if not line.strip():
                    continue
                documents += 1
                if documents > mark.documents + skip:
                    yield self._decoded(line, number), number
            since += sum(map(len, lines))
            if place is not None and bookmarks is not None and since >= _APART:
                offset, rest, unpack = place
                bookmarks.append(_Bookmark(documents, number, offset, rest, unpack.copy()))
                since = 0

    def _pieces(
        self, mark: _Bookmark
    ) -> Iterator[tuple[list[bytes], tuple[int, bytes, _Gzip | _Plain] | None]]:
        """The whole lines of each piece of the file, and the place behind it."""
        unpack, parts = mark.unpack.copy(), [mark.rest]
        with told_if_damaged(self._path), self._path.open("rb") as stream:
            stream.seek(mark.offset)
            while packed := stream.read(_READ):
                parts.append(unpack(packed))
                if b"\n" in parts[-1]:
                    *lines, rest = b"".join(parts).split(b"\n")
                    parts = [rest]
                    yield lines, (stream.tell(), rest, unpack)
            unpack.end()
        yield [b"".join(parts)], None

    def _decoded(self, line: bytes, number: int) -> str:
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._path} is not UTF-8 (line {number}); convert it, e.g. with iconv -t utf-8"
            ) from error
        return text.removesuffix("\r")


class ParquetDocuments(_Documents):
    """A text column of a Parquet file; a document is found by its group of rows.

    Raises:
        UserError: there is no such file, or it is damaged; when it is read: it is empty.
    """

    def __init__(self, path: Path, column: str) -> None:
        from pyarrow import parquet  # only the hub's files need it

        check_file(path)
        self._path, self._column = path, column
        with told_if_damaged(path):
            self._file = parquet.ParquetFile(path)
        groups = range(self._file.num_row_groups)
        self._starts = [0]
        for group in groups:
            self._starts.append(self._starts[-1] + self._file.metadata.row_group(group).num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[str]:
        if not len(self):
            raise UserError(f"{self._path} is empty; give a file with text")
        for group in range(len(self._starts) - 1):
            yield from self._rows(group)

    def _at(self, index: int) -> str:
        group = bisect.bisect(self._starts, index) - 1
        return next(self._rows(group, skip=index - self._starts[group]))

    def _rows(self, group: int, skip: int = 0) -> Iterator[str]:
        with told_if_damaged(self._path):
            batches = self._file.iter_batches(256, row_groups=[group], columns=[self._column])
            for batch in batches:
                yield from batch.column(0)[skip:].to_pylist()
                skip = max(0, skip - batch.num_rows)
