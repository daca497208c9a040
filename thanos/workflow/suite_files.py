"""Suite files: where they lie, and what is written in them, as it is written."""

import argparse
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from .. import layout
from ..errors import UserError
from ..paths import CONF

# Names of the values that a suite may have for another size: a small one for tests, and one for a
# trained language model.
SIZES = ("quick", "real")
# What a suite file may contain.
_KEYS = {"title", "common", "runs", *SIZES, "axis", "exclude", "variants"}


def suite_files(folders: Iterable[str] = ()) -> dict[str, Path]:
    """The suites of `conf/suite/` and of a user's own folders, by name."""
    places = [CONF, *map(Path, folders)]
    return {f.stem: f for place in places for f in sorted((place / "suite").glob("*.yaml"))}


def sweeps_of(results: Path) -> list[str]:
    """The folder of the sweeps that were run by hand into a results folder, if there are any."""
    folder = results / layout.SWEEPS
    return [str(folder)] if folder.is_dir() else []


def folder_of(name: str, size: str) -> str:
    """The name of the folder that a suite's results lie in."""
    return f"{name}-{size}" if size else name


def suite_of(folder: str) -> tuple[str, str]:
    """The suite of a folder, and its size; none for the whole."""
    name, _, size = folder.rpartition("-")
    return (name, size) if name and size in SIZES else (folder, "")


def add_sizes(options: argparse.ArgumentParser) -> None:
    """Let a command take a suite in one of its other sizes, as `size`."""
    helps = ("its small variant", "its variant of a trained language model")
    one = options.add_mutually_exclusive_group()
    for size, text in zip(SIZES, helps, strict=True):
        one.add_argument(
            f"--{size}", dest="size", action="store_const", const=size, default="", help=text
        )


def read_suite(file: Path) -> dict[str, Any]:
    """The content of a suite file; scalars are the text that is written, or None.

    YAML would make 124 of 2:4, and true of yes: what a value is depends on its key.

    Raises:
        UserError: it is no YAML, or not that of a suite.
    """
    where = f"suite {file.stem}"
    if size := suite_of(file.stem)[1]:
        raise UserError(f"{where}: a name that ends in -{size} is a suite's variant; rename {file}")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_AsWritten)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{where}: {file} is no YAML ({said})") from error
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise UserError(f"{where}: expected a mapping with a list of blocks under 'runs'")
    if unknown := sorted(set(content) - _KEYS):
        raise UserError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_KEYS))}")
    _check(where, content)
    return content


def _check(where: str, content: dict[str, Any]) -> None:
    """Check that all axes are axes, wherever a suite has some.

    Raises:
        UserError: one has no value, or what should be axes are none.
    """
    for key in ("common", "quick", "variants"):
        if not isinstance(content.get(key, {}), dict):
            raise UserError(f"{where}: {key} must be a mapping; leave it out if it is empty")
    if not isinstance(content.get("exclude", []), list):
        raise UserError(f"{where}: exclude must be a list of mappings")
    parts = {key: content.get(key, {}) for key in ("common", "quick")}
    parts |= {f"block {n}": block for n, block in enumerate(content["runs"], start=1)}
    parts |= {f"variant {name}": axes for name, axes in content.get("variants", {}).items()}
    parts |= {f"exclude {n}": axes for n, axes in enumerate(content.get("exclude", []), start=1)}
    for part, axes in parts.items():
        if not isinstance(axes, dict):
            raise UserError(f"{where}, {part}: expected a mapping from keys to values")
        for key, values in axes.items():
            if values == [] or isinstance(values, dict):
                found = "has no value" if values == [] else "is a mapping"
                raise UserError(
                    f"{where}, {part}, axis {key} {found}; give one value or a list of values, or "
                    "leave it out"
                )


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
