"""A table as LaTeX, for a document that loads `booktabs`."""

from thanos.reporting.grid import Cell, Table
from thanos.reporting.panels import cut_panels, plain_cell, widths_of, with_short_labels

# A page of LaTeX's article in \footnotesize; points, of its width, a character and between columns.
LATEX_LINES, _NOTE_CHARACTERS = 58, 85
LATEX_WIDTH, _LATEX_CHARACTER, _LATEX_GAP = 345, 4.4, 8
_LABEL = 36  # characters
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
    "‖": r"$\Vert$",
}


def to_latex(table: Table) -> str:
    """`table` environments for a document that loads `booktabs`.

    What is wider than a page becomes panels, and more panels than fit a page go on in another one.
    """
    notes = [latex_escape(note) for note in table.notes("Bold:")]
    room = LATEX_LINES - sum(1 + len(note) // _NOTE_CHARACTERS for note in notes)
    floats: list[list[Table]] = []
    height = 0
    for panel in cut_panels(with_short_labels(table, _LABEL), _fits_page):
        height += (lines := _latex_lines(panel))
        if not floats or height > room:
            floats.append([])
            height = lines
        floats[-1].append(panel)
    title = latex_escape(table.title)
    begin = rf"\centering\footnotesize\setlength{{\tabcolsep}}{{{_LATEX_GAP // 2}pt}}"
    parts = []
    for number, panels in enumerate(floats):
        continued = [r"\addtocounter{table}{-1}", rf"\caption{{{title} (continued)}}"]
        first = [rf"\caption{{{title}}}", rf"\label{{tab:{table.name.replace('_', '-')}}}"]
        parts += [r"\begin{table}[tbp]", begin, *(continued if number else first)]
        parts.append("\n\\par\\bigskip\n".join(map(_latex_panel, panels)))
        if panels is floats[-1]:
            parts += [rf"\par\smallskip{{{note}\par}}" for note in notes]
        parts.append(r"\end{table}")
    return "\n".join([*parts, ""])


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is, with our symbols in mathematics mode."""
    return "".join(_LATEX.get(character, character) for character in text)


def _fits_page(panel: Table) -> bool:
    stubs, widths, _ = widths_of(panel, plain_cell)
    gaps = _LATEX_GAP * (len(stubs) + len(widths) - 1)
    return _LATEX_CHARACTER * sum((*stubs, *widths)) + gaps <= LATEX_WIDTH


def _latex_lines(panel: Table) -> int:
    """Lines that a panel takes, rules and the space before the next one included."""
    headings = max(map(len, widths_of(panel, plain_cell)[2]))
    rows = sum(1 + max(label.count("\n") for label in row.labels) for row in panel.rows())
    return 4 + headings + 2 * len(panel.blocks) + rows


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return rf"{text} $\pm$ {cell.interval}" if cell.interval else text


def _latex_label(label: str) -> str:
    lines = r" \\ \quad ".join(latex_escape(line.strip()) for line in label.split("\n"))
    return rf"\shortstack[l]{{{lines}}}" if "\n" in label else lines


def _latex_panel(table: Table) -> str:
    stub, width = len(table.stub), len(table.stub) + len(table.columns)
    groups, rules, place = [""] * stub, [], stub + 1
    _, _, headings = widths_of(table, plain_cell)
    for lines_of, (_, count) in zip(headings, table.groups(), strict=True):
        title = r" \\ ".join(map(latex_escape, lines_of))
        if len(lines_of) > 1:
            title = rf"\shortstack{{{title}}}"
        groups.append(rf"\multicolumn{{{count}}}{{c}}{{{title}}}")
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
            cells = [*map(_latex_label, row.labels), *map(_latex_cell, row.cells)]
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])
