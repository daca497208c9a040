"""Hashes of the project's own source, by what it says and not by how it is written.

A stage depends on the modules that it imports, directly or not. Each is hashed by its syntax tree
without comments, docstrings and layout. A package's `__init__` that only passes names on is
followed to where they are defined, so that a new name in it changes nothing. What else lies in a
package, templates say, counts as it is.
"""

import ast
import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
ROOT = PACKAGE.name
_MODULES = (".py", ".pyc", ".pyi")
# These say where and when something is computed and record it. What they import counts only where
# something else imports it too.
BOOKKEEPING = tuple(
    f"{ROOT}.{name}"
    for name in ("command", "content", "errors", "identity", "paths", "provenance", "workflow")
)


def source_hashes(module: str, unused: Collection[str] = ()) -> dict[str, str]:
    """Twelve digits for each module that `module` imports, directly or not, and for itself.

    Args:
        module: such as `thanos.stages.prune`.
        unused: modules that a choice of options never runs; nothing is followed through them.
    """
    found: dict[str, str] = {}
    ahead = [module]
    while ahead:
        name = ahead.pop()
        if name in found or name in unused or _is_bookkeeping(name):
            continue
        source = _source(name)
        found[name] = source.hash
        ahead += source.imports
    return dict(sorted(found.items()))


def changed_modules(recorded: Mapping[str, str]) -> list[str]:
    """Modules that are no longer what they were when a result's record named them."""
    today: dict[str, str] = {}
    for name in recorded:
        if name.startswith(f"{ROOT}.stages."):
            today |= source_hashes(name)
    return sorted(name for name, found in recorded.items() if today.get(name) != found)


@dataclass(frozen=True)
class _Source:
    hash: str
    imports: tuple[str, ...]
    passed_on: dict[str, str]  # by name: the module that an `__init__` has it from


def _is_bookkeeping(name: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in BOOKKEEPING)


@functools.cache
def _source(name: str) -> _Source:
    file = _file(name)
    assert file is not None, name
    tree = ast.parse(file.read_bytes())
    imports: list[str] = []
    passed_on: dict[str, str] = {}
    for base, alias in _imported(tree, name, is_package=file.name == "__init__.py"):
        module = _defining_module(base, alias)
        imports.append(module)
        if alias is not None:
            passed_on[alias] = module
    for node in ast.walk(tree):
        _drop_texts(node)
    content = hashlib.sha256(ast.dump(tree, include_attributes=False).encode())
    for beside in _data_of(file):
        content.update(beside.name.encode() + beside.read_bytes())
    return _Source(content.hexdigest()[:12], tuple(dict.fromkeys(imports)), passed_on)


def _data_of(file: Path) -> list[Path]:
    """What a package holds beside modules, such as templates: part of the package itself."""
    if file.name != "__init__.py":
        return []
    files = (found for found in file.parent.glob("[!.]*") if found.is_file())
    return sorted(found for found in files if found.suffix not in _MODULES)


def _imported(tree: ast.AST, name: str, is_package: bool) -> Iterator[tuple[str, str | None]]:
    """Modules of the project that are imported anywhere, and the name taken from each, if any."""
    parents = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == ROOT:
                    yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base.partition(".")[0] == ROOT:
                for alias in node.names:
                    yield base, alias.name


def _defining_module(base: str, name: str | None) -> str:
    """Where `from base import name` has it from, through any number of `__init__`s."""
    if name is None:
        return base
    if _file(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    file = _file(base)
    if file is not None and file.name == "__init__.py":
        return _source(base).passed_on.get(name, base)
    return base


@functools.cache
def _file(name: str) -> Path | None:
    if name == ROOT:
        return PACKAGE / "__init__.py"
    path = PACKAGE.joinpath(*name.split(".")[1:])
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _drop_texts(node: ast.AST) -> None:
    """Take texts that stand alone out of a body: docstrings."""
    body = getattr(node, "body", None)
    if isinstance(body, list):
        body[:] = [part for part in body if not _is_text(part)]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
