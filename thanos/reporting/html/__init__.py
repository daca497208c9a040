"""Pages for a browser, from the templates beside this module: self-contained, without network.

All that a template is given is text: what stands in a name is shown and never obeyed.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from thanos.reporting.grid import Cell, Table

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True)
class File:
    """A file that a page leads to; `path` is relative to the page."""

    name: str
    path: str

    @property
    def link(self) -> str:
        """The path as a link has it."""
        return quote(self.path)


def page(template: str, **values: Any) -> str:
    """The page `<template>.html.j2`, filled."""
    return _PAGES.get_template(f"{template}.html.j2").render(values)


def to_html(table: Table) -> str:
    """One page with the table, the best values in bold, and its footnotes."""
    return page("table", title=table.title, table=table)


def svg_source(file: Path) -> str:
    """A drawing as the source of an `img`, where no script in it runs and no style leaks out."""
    return f"data:image/svg+xml;base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"


def _places(cell: Cell, anchors: Mapping[str, str]) -> list[str]:
    """Where on the page the runs of a number are, if it has any there."""
    return [anchors[run] for run in cell.made_of() if run in anchors]


_PAGES.filters["places"] = _places
