"""Names and JSON that come from files which others wrote: nothing in them is believed."""

import json
from pathlib import Path, PurePosixPath
from typing import Any


def inside(folder: Path, name: Any) -> Path:
    """The file that `name` stands for in `folder`, or below it, and nowhere else.

    Only the name is looked at: no link is followed, and the file need not exist.

    Raises:
        ValueError: it is no relative name, leads out of the folder, or is the folder itself.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"{name!r:.80} is no file's name")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r:.80} is no file inside {folder}")
    return folder / path


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """The values of a JSON text.

    Args:
        text: UTF-8.
        unique: refuse a key that stands twice in an object, which readers understand differently.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"key {name!r:.80} stands twice")
        values[name] = value
    return values
