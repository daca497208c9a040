"""Suite files: where they lie, and what is written in them, as it is written."""

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from .. import layout
from ..errors import UserError
from ..paths import CONF

# What a suite file may contain.
_KEYS = {"title", "common", "runs", "quick", "axis", "exclude", "variants"}


def suite_files(folders: Iterable[str] = ()) -> dict[str, Path]:
    """The suites of `conf/suite/` and of a user's own folders, by name."""
    places = [CONF, *map(Path, folders)]
    return {f.stem: f for place in places for f in sorted((place / "suite").glob("*.yaml"))}


def sweeps_of(results: Path) -> list[str]:
    """The folder of the sweeps that were run by hand into a results folder, if there are any."""
    folder = results / layout.SWEEPS
    return [str(folder)] if folder.is_dir() else []


def read_suite(file: Path) -> dict[str, Any]:
    """The content of a suite file; scalars are the text that is written, or None.

    YAML would make 124 of 2:4, and true of yes: what a value is depends on its key.

    Raises:
        UserError: it is no YAML, or not that of a suite.
    """
    where = f"suite {file.stem}"
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_AsWritten)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{where}: {file} is no YAML ({said})") from error
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise UserError(f"{where}: expected a mapping with a list of blocks under 'runs'")
    if unknown := sorted(set(content) - _KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    return content


class _AsWritten(yaml.SafeLoader):
    """Reads null, and all other scalars as text; a key may be given once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _text(_: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


for _tag in ("bool", "int", "float", "timestamp"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_tag}", _text)
