"""A spec: plain, frozen data, whose hash names what is made of it, and its form as JSON.

Paths are no part of an identity: a file is what it holds, wherever it lies. Labels are none either.
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..artifacts import read_json
from ..errors import UserError
from ..pruning.composition import Method
from ..pruning.patterns import Pattern, parse_pattern

# Of a folder's name: what it is, readable, and twelve digits of the identity's hash.
ID = r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{12}"

# Options that came after the first results: where they are off they are in no identity, so that
# these keep their names.
_LATER = {
    *("iterations", "penalty", "schedule", "order", "correction", "mask"),
    *("allocation", "allocation_spread", "allocation_unit"),
    *("reconstruction_steps", "reconstruction_rate", "reconstruction_batch"),
    *("reconstruction_precision", "channel_permutation", "dense_skip", "divergence", "add_bos"),
}

AnySpec = TypeVar("AnySpec", bound="Spec")


@dataclass(frozen=True)
class Spec:
    """What one thing is of."""

    def identity(self) -> dict[str, Any]:
        """JSON values that distinguish this thing from all others of its kind."""
        off = {
            field.name
            for field in dataclasses.fields(self)
            if field.name in _LATER and getattr(self, field.name) == field.default
        }
        return {name: _identity(value) for name, value in self._values() if name not in off}

    @property
    def readable(self) -> str:
        """The part of the folder's name that people read."""
        raise NotImplementedError

    @cached_property
    def id(self) -> str:
        """The name of the folder of what is made of this spec."""
        return f"{slug(self.readable)}-{digest(self.identity())}"

    def to_json(self) -> dict[str, Any]:
        """The whole spec, paths included, as JSON values; `read_spec` reads it."""
        return {name: _plain(value) for name, value in self._values()}

    def _values(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]


def read_spec(kind: type[AnySpec], text: str) -> AnySpec:
    """Read a command's spec: JSON, or a result that was made of it, whose `spec` is read.

    Raises:
        UserError: it is neither, or a result that is damaged.
    """
    inline = text.lstrip().startswith("{")
    try:
        values = json.loads(text) if inline else read_json(Path(text))
        spec: AnySpec = _parsed(kind, values.get("spec", values))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{text[:80] if inline else text} is no {kind.__name__} ({type(error).__name__}: "
            f"{error}); give its JSON, or a file with it under the key spec"
        ) from error
    return spec


def digest(values: Any) -> str:
    """Twelve hexadecimal digits that identify JSON values, whatever the order of the keys."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.") or "unnamed"


def _identity(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.id
    return [_identity(item) for item in value] if isinstance(value, tuple) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    if isinstance(value, Pattern):
        return str(value)
    if isinstance(value, Method):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _parsed(kind: Any, value: Any) -> Any:
    """The inverse of `_plain`, by the type that a field has."""
    if kind is Pattern:
        return parse_pattern(value)
    if isinstance(kind, types.UnionType):  # the first that has all of the value's keys
        known = [one for one in typing.get_args(kind) if dataclasses.is_dataclass(one)]
        for one in known if isinstance(value, dict) else ():
            if value.keys() <= {field.name for field in dataclasses.fields(one)}:
                return _parsed(one, value)
        return value
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        given = {name: _parsed(hints[name], item) for name, item in value.items()}
        return typing.cast(Any, kind)(**given)
    if typing.get_origin(kind) is tuple:
        return tuple(_parsed(typing.get_args(kind)[0], item) for item in value)
    return value
