"""Text and records from files: every complaint is one line with the file and the remedy."""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UserError, is_full_disk

Content = TypeVar("Content")


def read_text(path: Path) -> str:
    """Return a UTF-8 file (a `.gz` is unpacked) with newlines as they are in the file.

    Raises:
        UserError: if the file is missing, damaged, not UTF-8, or holds nothing but white space.
    """
    return _read(path, lambda: _decompressed(path).decode("utf-8-sig"))


def read_lines(path: Path) -> list[str]:
    r"""Return the lines of a UTF-8 file without their newlines.

    Only `\n` and `\r\n` end a line: `str.splitlines` would also break at the exotic separators that
    occur in web text.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; blank lines are skipped.

    Raises:
        UserError: as `read_text`, and if a line is not a JSON object.
    """
    lines = enumerate(read_lines(path), start=1)
    return [json_object(path, number, line) for number, line in lines if line.strip()]


def json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return the object in a line of a JSON-lines file.

    Raises:
        UserError: the line is not a JSON object.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "nested too deeply")
        raise UserError(f"{path}, line {number}: not JSON ({reason}); fetch it again") from error
    if not isinstance(row, dict):
        raise UserError(f"{path}, line {number}: expected a JSON object; fetch the file again")
    return row


def hub_file(
    repository: str, filename: str, revision: str, remedy: str, local_dir: Path | None = None
) -> Path:
    """Return the local copy of a file of a data set on the Hugging Face hub, downloaded once.

    It lies in the hub's cache, or below `local_dir`.

    Raises:
        UserError: with `remedy`, if the file is neither in the local cache nor can be fetched.
    """
    import httpx2
    from huggingface_hub import hf_hub_download  # local sources never pay for these imports

    hub_log = logging.getLogger("huggingface_hub")
    level = hub_log.level
    hub_log.setLevel(logging.ERROR)  # five retries would be told before the one line below
    try:
        return Path(
            hf_hub_download(
                repository,
                filename,
                repo_type="dataset",
                revision=revision,
                local_dir=local_dir,
            )
        )
    except (OSError, httpx2.HTTPError) as error:  # no network, offline mode, unknown revision
        if is_full_disk(error):
            raise
        raise UserError(
            f"{repository}/{filename} could not be fetched from the Hugging Face hub "
            f"({type(error).__name__}); {remedy}"
        ) from error
    finally:
        hub_log.setLevel(level)


def check_file(path: Path, key: str = "") -> None:
    """Refuse what is no file.

    Args:
        path: of the file.
        key: of the configuration that names it.

    Raises:
        UserError: it is a folder, a pipe, or nothing.
    """
    if not path.is_file():
        where = f"{key}: " if key else ""
        raise UserError(f"{where}{path} {_kind(path)}; give the path of a text file")


def _kind(path: Path) -> str:
    """What a path is that is no file."""
    kinds = {
        "is a folder, not a file": path.is_dir,
        "is a pipe, which can be read only once": path.is_fifo,
        "is a socket": path.is_socket,
        "is a device": lambda: path.is_char_device() or path.is_block_device(),
        "is a link to nothing": path.is_symlink,
    }
    return next((kind for kind, holds in kinds.items() if holds()), "does not exist")


@contextmanager
def told_if_damaged(path: Path) -> Iterator[None]:
    """Say in one line that a file is damaged: a gzip file that is cut short, say, or Parquet."""
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from error


def _decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def _read(path: Path, read: Callable[[], Content]) -> Content:
    check_file(path)
    with told_if_damaged(path):
        try:
            content = read()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not UTF-8 (byte {error.start}); convert it, e.g. with iconv -t utf-8"
            ) from error
    if not content or (isinstance(content, str) and not content.strip()):
        raise UserError(f"{path} is empty; give a file with text")
    return content
