"""The workflow's options, `--config key=value`: Snakemake reads values as YAML, before us.

`python -m thanos` gives them in another form, that no reader on the way can mistake.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any

from ..config.grammar import split_overrides
from ..errors import UserError

_ENCODED = "base64:"


def encoded(value: str | list[str]) -> str:
    """A value in letters and digits."""
    return _ENCODED + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def decoded(value: Any) -> Any:
    """The value that was `encoded`; any other as it is."""
    if not isinstance(value, str) or not value.startswith(_ENCODED):
        return value
    text = value.removeprefix(_ENCODED)
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def texts_of(value: Any) -> list[str]:
    """One text, or a list of them."""
    value = decoded(value)
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def line_of(overrides: Sequence[str]) -> str:
    """The value of `overrides=` that these stand in: one line where that is read back alike."""
    line = " ".join(overrides)
    as_yaml = " #" in line or ": " in line or line != line.strip("'\"")
    if as_yaml or split_overrides(line) != list(overrides):
        return json.dumps(list(overrides), ensure_ascii=False)
    return line


def overrides_of(value: Any, arguments: Sequence[str]) -> list[str]:
    """The overrides that `--config overrides=…` asks for: one line of them, or a list.

    Args:
        value: as Snakemake has read it.
        arguments: of the command line, to see whether that is what was typed.

    Raises:
        UserError: it is not, since YAML knows comments, mappings and quotes; the message says what
            to type instead.
    """
    value = decoded(value)
    if isinstance(value, list):
        return [str(override) for override in value]
    raw = [text.partition("=")[2] for text in arguments if text.startswith("overrides=")]
    if raw and raw[-1].strip() != ("" if value is None else str(value)):
        as_list = line_of(split_overrides(raw[-1]))
        raise UserError(
            f"--config overrides={raw[-1]} was read as {value!r}, for Snakemake reads it as YAML, "
            f"where ' #' begins a comment and ': ' a mapping; give a list, 'overrides={as_list}', "
            "or use python -m thanos suite <name> key=value …"
        )
    return [] if value is None else split_overrides(str(value))
