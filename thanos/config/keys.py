"""The keys of a configuration, with type, default and meaning, as the schema has them."""

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from .schema import Config

_TYPES: dict[Any, str] = {
    **{str: "text", int: "integer", float: "number", bool: "true or false"},
    **{list[str]: "list of text", list[int]: "list of integers"},
}


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: with the group's, as in `model.path`.
        kind: its Python type, without None; of a group: the group's dataclass.
        optional: whether it can be null.
        default: of the schema; `MISSING` if an option or the user must give it.
        meaning: one line.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    meaning: str

    @property
    def is_group(self) -> bool:
        """Whether there are options to choose from."""
        return dataclasses.is_dataclass(self.kind)

    @property
    def type_name(self) -> str:
        """What its values are, in words."""
        name = _TYPES[self.kind]
        return f"{name} or null" if self.optional else name

    @property
    def default_text(self) -> str:
        """The default as it would be typed."""
        if self.default is None:
            return "null"
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return {MISSING: "by the option", "": "''"}.get(str(self.default), str(self.default))


@functools.cache
def all_keys() -> dict[str, Key]:
    """All keys by name, groups before theirs."""
    found: dict[str, Key] = {}
    for key in _keys_of(Config, ""):
        found[key.name] = key
        if key.is_group:
            found |= {inner.name: inner for inner in _keys_of(key.kind, f"{key.name}.")}
    return found


def _keys_of(schema: type, prefix: str) -> list[Key]:
    hints, said = typing.get_type_hints(schema), _meanings(schema)
    found = []
    for field in dataclasses.fields(schema):
        kind, optional = hints[field.name], False
        if isinstance(kind, types.UnionType):
            kind, optional = typing.get_args(kind)[0], True
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found.append(Key(prefix + field.name, kind, optional, default, said.get(field.name, "")))
    return found


def _meanings(schema: type) -> dict[str, str]:
    """The lines under `Attributes:` of a docstring."""
    _, _, listed = (schema.__doc__ or "").partition("Attributes:")
    pairs = re.findall(r"^        (\w+): (.+(?:\n {9,}.+)*)", listed, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in pairs}
