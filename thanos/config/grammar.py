"""Overrides as they are typed: Hydra's grammar, and text where the schema says text.

What Hydra's grammar reads as text, null or a function keeps that meaning, escapes, quotes and
interpolations included. Anything else that is typed for a key of text stays as typed: a number
(`1e5`, `0123`), a switch (`yes`), and what the grammar cannot read (`=`, `(`, `#`, `'`, `ü`).
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Sweep, Transformer, ValueType
from hydra.errors import HydraException

from ..errors import UserError
from .keys import Key, all_keys
from .schema import PATHS

Value = str | list[str] | None  # of a key in a suite: as it is typed; None is null

_PARSER = OverridesParser.create()
_OVERRIDE = re.compile(r"(\+\+?|~)?([^=]*)=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"(\w+)\s*\((.*)\)", re.DOTALL)
_OPENING, _CLOSING = "([{", ")]}"


def key_of(override: str) -> str:
    """The key that an override sets: `method.damping` of `+method.damping=0.1`."""
    return override.partition("=")[0].lstrip("+~")


@functools.cache
def parsed(override: str) -> Override:
    """An override as Hydra reads it, text as typed.

    Raises:
        UserError: it is none.
    """
    text = typed(override)
    try:
        return _PARSER.parse_override(text)
    except HydraException as error:
        if "=" not in override:
            raise UserError(f"override {override!r} has no value; expected key=value") from error
        raise UserError(
            f"override {override!r} cannot be read as key=value; quote the value where it has "
            f"commas, brackets or other signs: {key_of(override)}=\"'…'\""
        ) from error


@functools.cache
def typed(override: str) -> str:
    """An override in Hydra's grammar, in which text is what was typed."""
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        return override
    prefix, name, value = match.groups(default="")
    key = _key(name)
    return override if key is None else f"{prefix}{name}={_typed(key, value.strip())}"


def values_of(override: str, loader: ConfigLoader) -> tuple[str, list[Value]]:
    """The key of an override, with its prefix, and the values that it is swept over.

    Values of text keys are as they were meant, without quotes; others are in Hydra's grammar.

    Raises:
        UserError: it is no override, or an interval, which has no end of values.
    """
    read = parsed(override)
    read.config_loader = loader
    name = read.get_key_element()
    if not read.is_sweep_override():
        if read.is_delete() and read.value() is None:
            return name, [None]
        element = read.value()
        if element is None or (is_text(name) and isinstance(element, str)):
            return name, [element]
        return name, [read.get_value_element_as_str()]
    if not read.is_discrete_sweep():
        raise UserError(f"override {override!r} is an interval; give the values to sweep over")
    if not is_text(name):
        return name, list(read.sweep_string_iterator())
    elements = list(read.sweep_iterator(transformer=Transformer.identity))
    return name, [_plain(element) for element in elements]


@functools.cache
def _written_text(name: str, text: str) -> str:
    """The override that sets a key to exactly this text."""
    plain = f"{name}={text}"
    read = _read(_OVERRIDE.fullmatch(typed(plain)).group(3))  # type: ignore[union-attr]
    same = read is not None and not read.is_sweep_override() and read.value() == text
    return plain if same else f"{name}={_quoted(text)}"


def written(name: str, value: Value) -> str:
    """The override that sets a key to a value of a suite."""
    if value is None:
        return name if name.startswith("~") else f"{name}=null"
    if isinstance(value, list):
        return f"{name}=[{','.join(_text(item, whole=True) for item in value)}]"
    return _written_text(name, value) if is_text(name) else f"{name}={value}"


def meaning(name: str, value: Value) -> Any:
    """What a value stands for: 0.10 is 0.1 where a number is meant, and a text is itself."""
    if value is None or isinstance(value, list) or is_text(name):
        return value
    read = _read(value)
    return value if read is None or read.is_sweep_override() else read.value()


def is_text(name: str) -> bool:
    """Whether a key's values are text: one of type text, or a group's options."""
    key = _key(name.lstrip("+~"))
    return key is not None and (key.kind is str or key.is_group)


def split_overrides(text: str) -> list[str]:
    """The overrides of one line, `model=doc-opt model.path=/my models/x`.

    A new one begins at whitespace before `key=`; quotes around a whole override or a value end
    where they are closed. After a path only a known key begins one, so that paths may have spaces.
    """
    found: list[str] = []
    rest = text.strip()
    while rest:
        length = _length_of_first(rest)
        first, rest = rest[:length], rest[length:].strip()
        quoted = _WHOLE.match(first)
        found.append(quoted[2] if quoted else first)
    return found


# An override in quotes; one whose value is; where another begins.
_WHOLE = re.compile(r"(['\"])([+~]*[A-Za-z_][\w./@-]*=.*?)\1(?=\s|$)", re.DOTALL)
_VALUE = re.compile(r"[+~]*[A-Za-z_][\w./@-]*=(['\"]).*?\1(?=\s|$)", re.DOTALL)
_NEXT = re.compile(r"\s+['\"]?(?:[+]{0,2}([A-Za-z_][\w./@-]*)=|~([A-Za-z_][\w./@-]*)(?=[\s=]|$))")


def _length_of_first(text: str) -> int:
    if closed := _WHOLE.match(text) or _VALUE.match(text):
        return closed.end()
    path = key_of(text.split(maxsplit=1)[0]) in PATHS
    for match in _NEXT.finditer(text):
        if _key(match[1] or match[2]) is not None or not path:
            return match.start()
    return len(text)


def _key(name: str) -> Key | None:
    """The key of a name; of `group@package` the group's."""
    return all_keys().get(name.partition("@")[0])


def _typed(key: Key, value: str) -> str:
    if key.is_group:
        if value.startswith("{") and value.endswith("}"):
            return _dictionary(key, value[1:-1])
        return value if value.startswith("[") else _text(value, whole=False)
    if key.kind is str:
        return _text(value, whole=key.name in PATHS)
    if key.kind in (int, float, bool):
        return value
    items = list(_split(value, ","))  # of text, or a sweep over such lists
    if not all(item.startswith("[") and item.endswith("]") for item in items):
        return value
    return ",".join(_list(item[1:-1]) for item in items)


def _list(inner: str) -> str:
    return f"[{','.join(_text(item, whole=False) for item in _split(inner, ',') if item)}]"


def _dictionary(group: Key, inner: str) -> str:
    pairs = []
    for item in filter(None, _split(inner, ",")):
        name, colon, value = item.partition(":")
        key = _key(f"{group.name}.{name.strip()}")
        pairs.append(f"{name}:{_typed(key, value.strip())}" if key and colon else item)
    return f"{{{','.join(pairs)}}}"


def _text(value: str, *, whole: bool) -> str:
    """Text in Hydra's grammar; commas separate texts unless it is `whole`."""
    read = _read(value)
    call = _FUNCTION.fullmatch(value)
    if read is not None:
        if call and call[1] == "choice":
            return f"choice({','.join(_text(item, whole=whole) for item in _split(call[2], ','))})"
        if call and call[1] in _PARSER.functions.functions:
            return value
        if read.value_type == ValueType.ELEMENT and (
            read._value is None or isinstance(read._value, (str, QuotedString))
        ):
            return value
    items = [value] if whole else list(_split(value, ","))
    if len(items) > 1 and all(items):
        return ",".join(_text(item, whole=True) for item in items)
    return _quoted(value)


@functools.cache
def _read(value: str) -> Override | None:
    try:
        return _PARSER.parse_override(f"x={value}")
    except HydraException:
        return None


def _plain(element: Any) -> Value:
    if isinstance(element, QuotedString):
        return element.text
    if element is None or isinstance(element, str):
        return element
    assert not isinstance(element, Sweep)
    return str(element)


def _quoted(text: str) -> str:
    """Text in single quotes; a quote, and backslashes before one, are escaped."""
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    return "'" + escaped + "\\" * (len(escaped) - len(escaped.rstrip("\\"))) + "'"


def _split(text: str, separator: str) -> Iterator[str]:
    """The parts of a text, without the separators in brackets or in quotes that open a part."""
    start = depth = 0
    quote = ""
    for place, sign in enumerate(text):
        if quote:
            if sign == quote and not _escaped(text, place):
                quote = ""
        elif sign in "'\"" and not text[start:place].strip(" ([{"):
            quote = sign
        elif sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif sign == separator and depth == 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _escaped(text: str, place: int) -> bool:
    before = text[:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1
