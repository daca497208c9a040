"""A table as a small HTML page, for the report: self-contained, no script, no network."""

from html import escape

from thanos.reporting.grid import Cell, Row, Table

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #1a1a1a; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .6em; }
th, td { padding: .2em .9em; text-align: right; white-space: nowrap; }
th.stub, td.stub { text-align: left; }
thead tr:last-child th { border-bottom: 1px solid #1a1a1a; }
tr.block th { text-align: left; padding-top: .8em; border-bottom: 1px solid #ccc; }
ul { padding-left: 1.2em; max-width: 60em; color: #444; }
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole page: self-contained, no script, no network."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        f"{body}</body></html>\n"
    )


def body_of(text: str) -> str:
    """What `page` was made around."""
    return text.partition("<body>\n")[2].removesuffix("</body></html>\n")


def to_html(table: Table) -> str:
    """One page with the table, the best values in bold, and its footnotes."""
    width = len(table.stub) + len(table.columns)
    groups = "".join(
        f'<th colspan="{count}">{escape(title)}</th>' for title, count in table.groups()
    )
    heads = "".join(f'<th class="stub">{escape(name)}</th>' for name in table.stub)
    heads += "".join(f"<th>{escape(column.name)}</th>" for column in table.columns)
    body = []
    for block in table.blocks:
        body.append(f'<tr class="block"><th colspan="{width}">{escape(block.title)}</th></tr>')
        body += [_row(row) for row in block.rows]
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes("Bold:"))
    return page(
        table.title,
        f"<table><caption>{escape(table.title)}</caption>\n"
        f'<thead><tr><th colspan="{len(table.stub)}"></th>{groups}</tr><tr>{heads}</tr></thead>\n'
        f"<tbody>{''.join(body)}</tbody></table>\n<ul>{notes}</ul>",
    )


def _row(row: Row) -> str:
    labels = "".join(f'<td class="stub">{escape(label)}</td>' for label in row.labels)
    return f"<tr>{labels}{''.join(_cell(cell) for cell in row.cells)}</tr>"


def _cell(cell: Cell) -> str:
    text = escape(f"{cell.text} ± {cell.interval}" if cell.interval else cell.text)
    return f"<td>{f'<b>{text}</b>' if cell.best else text}</td>"
