"""A table as Markdown, CSV, LaTeX or text for a terminal."""

import csv
import io
import itertools
import textwrap
from collections.abc import Callable, Iterator

from thanos.reporting.grid import Cell, Table

TERMINAL_WIDTH = 80
LATEX_COLUMNS = 8  # more do not fit a page: the rest goes into further panels
LATEX_WIDTH = 96  # characters of a line
_GAP_BETWEEN = 2
_LATEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "†": r"$\dagger$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "Δ": r"$\Delta$",
}


def to_markdown(table: Table) -> str:
    """A pipe table with its title and footnotes; the best values in bold."""
    heads = [*table.stub, *(f"{column.group}<br>{column.name}" for column in table.columns)]
    rule = ["---"] * len(table.stub) + ["---:"] * len(table.columns)
    lines = [heads, rule]
    for block in table.blocks:
        lines.append([f"**{block.title}**", *[""] * (len(heads) - 1)])
        for row in block.rows:
            lines.append([*row.labels, *map(_markdown_cell, row.cells)])
    body = "\n".join(
        "| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines
    )
    notes = "\n".join(f"- {note}" for note in table.notes("Bold:"))
    return f"**{table.title}**\n\n{body}\n" + (f"\n{notes}\n" if notes else "")


def to_csv(table: Table) -> str:
    """Full-precision values: `block`, the stub, then the columns; gaps are empty.

    A column with an interval is followed by its half width.
    """
    with_interval = [
        any(row.cells[index].half_width is not None for row in table.rows())
        for index in range(len(table.columns))
    ]
    heads = ["block", *table.stub]
    for column, has_interval in zip(table.columns, with_interval, strict=True):
        name = f"{column.group}: {column.name}"
        heads += [name, f"{name} ±"] if has_interval else [name]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(heads)
    for block in table.blocks:
        for row in block.rows:
            numbers: list[float | None] = []
            for cell, has_interval in zip(row.cells, with_interval, strict=True):
                numbers += [cell.value, cell.half_width] if has_interval else [cell.value]
            writer.writerow(
                [block.title, *row.labels, *("" if n is None else repr(n) for n in numbers)]
            )
    return output.getvalue()


def to_latex(table: Table) -> str:
    """A `table` environment for a document that loads `booktabs`; wide tables become panels."""
    panels = [_latex_panel(panel) for panel in _panels(table, _fits_page)]
    notes = [
        rf"\par\smallskip{{\footnotesize {latex_escape(note)}\par}}"
        for note in table.notes("Bold:")
    ]
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering\small",
            rf"\caption{{{latex_escape(table.title)}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            "\n\\par\\bigskip\n".join(panels),
            *notes,
            r"\end{table}",
            "",
        ]
    )


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is, with our symbols in mathematics mode."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_terminal(table: Table) -> str:
    """Fixed-width text that a terminal holds, in panels where needed; `*` marks the best."""

    def fits(panel: Table) -> bool:
        return len(_terminal_lines(panel)[0]) <= TERMINAL_WIDTH

    parts = []
    for panel in _panels(table, fits):
        parts.append("\n".join(line.rstrip()[:TERMINAL_WIDTH] for line in _terminal_lines(panel)))
    text = "\n".join(
        textwrap.fill(note, TERMINAL_WIDTH, subsequent_indent="  ") for note in table.notes("*")
    )
    title = textwrap.fill(table.title, TERMINAL_WIDTH)
    return "\n\n".join(filter(None, (title, *parts, text))) + "\n"


def _panels(table: Table, fits: Callable[[Table], bool]) -> Iterator[Table]:
    """Cut a wide table into panels that fit, between groups of columns where possible."""
    ends = set(itertools.accumulate(count for _, count in table.groups()))
    first, total = 0, len(table.columns)
    while first < total:
        last = first + 1
        while last < total and fits(table.select(first, last + 1)):
            last += 1
        last = max((end for end in ends if first < end <= last), default=last)
        yield table.select(first, last)
        first = last


def _fits_page(panel: Table) -> bool:
    return len(panel.columns) <= LATEX_COLUMNS and len(_terminal_lines(panel)[0]) <= LATEX_WIDTH


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} ± {cell.interval}" if cell.interval else text


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return rf"{text} $\pm$ {cell.interval}" if cell.interval else text


def _latex_panel(table: Table) -> str:
    stub, width = len(table.stub), len(table.stub) + len(table.columns)
    groups, rules, place = [""] * stub, [], stub + 1
    for title, count in table.groups():
        groups.append(rf"\multicolumn{{{count}}}{{c}}{{{latex_escape(title)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + count - 1}}}")
        place += count
    names = [*table.stub, *(column.name for column in table.columns)]
    lines = [
        rf"\begin{{tabular}}{{@{{}}{'l' * stub}{'r' * len(table.columns)}@{{}}}}",
        r"\toprule",
        " & ".join(groups) + r" \\",
        " ".join(rules),
        " & ".join(map(latex_escape, names)) + r" \\",
    ]
    for block in table.blocks:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{width}}}{{@{{}}l}}{{\emph{{{latex_escape(block.title)}}}}} \\",
        ]
        for row in block.rows:
            cells = [*map(latex_escape, row.labels), *map(_latex_cell, row.cells)]
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _terminal_cell(cell: Cell) -> str:
    text = f"{cell.text} ± {cell.interval}" if cell.interval else cell.text
    return f"{text}{'*' if cell.best else ' '}"


def _terminal_lines(table: Table) -> list[str]:
    """Lines of equal meaning to a panel; the first is a rule as long as the longest line."""
    rows = list(table.rows())
    stubs = [
        max(len(name), *(len(row.labels[index]) for row in rows))
        for index, name in enumerate(table.stub)
    ]
    widths = [
        max(len(column.name) + 1, *(len(_terminal_cell(row.cells[index])) for row in rows))
        for index, column in enumerate(table.columns)
    ]
    headings, place = [], 0
    for title, count in table.groups():
        span = sum(widths[place : place + count]) + _GAP_BETWEEN * (count - 1)
        lacking = max(map(len, title.split())) - span
        widths[place] += max(lacking, 0)
        span += max(lacking, 0)
        headings.append([line.rjust(span) for line in textwrap.wrap(title, span)])
        place += count
    height = max(map(len, headings))
    for heading in headings:  # wrapped headings stand on the names below them
        heading[:0] = [" " * len(heading[0])] * (height - len(heading))
    gap = " " * _GAP_BETWEEN

    def line(labels: list[str], cells: list[str]) -> str:
        left = [text.ljust(size) for text, size in zip(labels, stubs, strict=True)]
        return gap.join(
            [*left, *(text.rjust(size) for text, size in zip(cells, widths, strict=True))]
        )

    blank = [" " * size for size in stubs]
    heads = [gap.join([*blank, *parts]) for parts in zip(*headings, strict=True)]
    names = line(list(table.stub), [f"{column.name} " for column in table.columns])
    rule = "-" * len(names)
    lines = [rule, *heads, names, rule]
    for block in table.blocks:
        lines.append(block.title)
        lines += [
            line(list(row.labels), list(map(_terminal_cell, row.cells))) for row in block.rows
        ]
    return [*lines, rule]
