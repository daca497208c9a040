"""Help and documentation of groups and keys, made from `conf/` and the schema."""

import textwrap

from .compose import GROUPS, Folders, options
from .keys import Key, all_keys

_WIDTH = 100


def help_text(folders: Folders = ()) -> str:
    """The groups with their options, and every key with type, default and meaning."""
    lines = ["groups, an option of each by <group>=<option>:"]
    for group in GROUPS:
        head, names = f"  {group:12} {all_keys()[group].meaning}: ", options(group, folders)
        lines += textwrap.wrap(
            head + ", ".join(names),
            _WIDTH,
            subsequent_indent=" " * 15,
            break_on_hyphens=False,  # names have some
        )
    lines += ["", "keys, by <key>=<value> (type; default; meaning):"]
    for key in _plain():
        head = f"  {key.name:28} {key.type_name}; {key.default_text}; "
        lines += textwrap.wrap(head + key.meaning, _WIDTH, subsequent_indent=" " * 31)
    lines += [
        "",
        "An option may have defaults of its own: --cfg job prints what is composed. A value may",
        "refer to another key, output_dir=out/${method.name}. The grammar of overrides is Hydra's.",
    ]
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The page of all keys."""
    lines = [
        "# Keys",
        "",
        "Made from the schema (`thanos/config/schema.py`), as `thanos --help` is. An option may",
        "have another default than the key: `thanos --cfg job` prints what is composed.",
        "",
        "| group | options |",
        "|---|---|",
        *(f"| `{g}`: {all_keys()[g].meaning} | {_codes(options(g))} |" for g in GROUPS),
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
        *(f"| `{key.name}` | {key.type_name} | {_code(key)} | {key.meaning} |" for key in _plain()),
    ]
    return "\n".join(lines) + "\n"


def _plain() -> list[Key]:
    """All keys that are no group, those of no group first."""
    return sorted((k for k in all_keys().values() if not k.is_group), key=lambda k: "." in k.name)


def _codes(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(key: Key) -> str:
    return key.default_text if key.default_text.startswith("by ") else f"`{key.default_text}`"
