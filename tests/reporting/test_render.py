"""One small table in every format."""

import shutil
import subprocess
from pathlib import Path

import pytest
from results_folder import ResultsFolder

from thanos.config import Run
from thanos.reporting.grid import Block, Cell, Column, Row, Table
from thanos.reporting.latex import latex_escape, to_latex
from thanos.reporting.render import to_csv, to_markdown, to_terminal
from thanos.reporting.tables import main_table

TABLE = Table(
    name="small",
    title="50% & more_or_less",
    stub=("Method",),
    columns=(Column("docs ↓", "model_a"), Column("docs ↓", "b"), Column("acc ↑", "b")),
    blocks=(
        Block(
            "2:4",
            (
                Row(("Wanda",), (Cell("9.00", 9.0), Cell("8.00", 8.0, "0.50", 0.5), Cell())),
                Row(
                    ("Thanos (α=0.1)",),
                    (
                        Cell("7.50", 7.5, best=True),
                        Cell("8.10", 8.1, "0.20", 0.2),
                        Cell("70.0", 70.0),
                    ),
                ),
            ),
        ),
    ),
    footnotes=("† not n:m.",),
)


# A method with all its options, as the suite beyond-135m has it.
LONG = Table(
    name="long-labels",
    title="Long labels",
    stub=("Method", "Sparsity"),
    columns=(Column("docstrings perplexity ↓", "smollm2-135m-q4"),),
    blocks=(
        Block(
            "2:4",
            (
                Row(("Thanos", "50.0%"), (Cell("28.18", 28.18),)),
                Row(
                    ("ADMM (refine 20, sublayer, β=0.75, permuted, reconstruct 60)", "50.0%"),
                    (Cell("19.85", 19.85, best=True),),
                ),
            ),
        ),
    ),
)


def test_markdown() -> None:
    assert to_markdown(TABLE) == (
        "**50% & more_or_less**\n\n"
        "| Method | docs ↓<br>model_a | docs ↓<br>b | acc ↑<br>b |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| **2:4** |  |  |  |\n"
        "| Wanda | 9.00 | 8.00 ± 0.50 | — |\n"
        "| Thanos (α=0.1) | **7.50** | 8.10 ± 0.20 | 70.0 |\n"
        "\n- Bold: best of each block.\n- † not n:m.\n"
    )


def test_csv_has_the_full_numbers() -> None:
    assert to_csv(TABLE) == (
        "block,Method,docs ↓: model_a,docs ↓: b,docs ↓: b ±,acc ↑: b\n"
        "2:4,Wanda,9.0,8.0,0.5,\n"
        "2:4,Thanos (α=0.1),7.5,8.1,0.2,70.0\n"
    )


def test_terminal() -> None:
    assert to_terminal(TABLE) == (
        "50% & more_or_less\n\n"
        "---------------------------------------------\n"
        "                                docs ↓  acc ↑\n"
        "Method          model_a             b      b\n"
        "---------------------------------------------\n"
        "2:4\n"
        "Wanda              9.00   8.00 ± 0.50      —\n"
        "Thanos (α=0.1)     7.50*  8.10 ± 0.20   70.0\n"
        "---------------------------------------------\n\n"
        "* best of each block.\n† not n:m.\n"
    )


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_terminal_is_never_wider(
    demo_runs: list[Run], results: ResultsFolder, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thanos.reporting.render.TERMINAL_WIDTH", width)
    text = to_terminal(main_table(results.collect(demo_runs).results))
    assert max(map(len, text.splitlines())) <= width
    assert text.count("doc-opt") == 2  # nothing is lost


def test_latex() -> None:
    text = to_latex(TABLE)
    assert r"\caption{50\% \& more\_or\_less}" in text
    assert (
        r"& \multicolumn{2}{c}{docs $\downarrow$} & \multicolumn{1}{c}{acc $\uparrow$} \\" in text
    )
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in text
    assert r"Wanda & 9.00 & 8.00 $\pm$ 0.50 & --- \\" in text
    assert r"Thanos ($\alpha$=0.1) & \textbf{7.50} & 8.10 $\pm$ 0.20 & 70.0 \\" in text
    assert latex_escape(r"a_b%c\d~{e}^†") == (
        r"a\_b\%c\textbackslash{}d\textasciitilde{}\{e\}\textasciicircum{}$\dagger$"
    )
    assert text.isascii()


def test_wide_latex_is_cut_between_groups() -> None:
    columns = tuple(Column(f"group {i // 3}", str(i)) for i in range(12))
    cells = tuple(Cell(f"{i}000.00", 1000.0 * i) for i in range(12))
    blocks = (Block("b", (Row(("m",), cells),)),)
    text = to_latex(Table("wide", "wide", ("Method",), columns, blocks))
    assert text.count(r"\begin{tabular}{@{}lrrrrrr@{}}") == 2


def test_what_is_longer_than_a_page_goes_on_in_another_float() -> None:
    columns = tuple(Column(f"group {i}", "a_column_of_some_width") for i in range(9))
    rows = tuple(Row((f"row {i}",), tuple(Cell("1.0", 1.0) for _ in columns)) for i in range(20))
    text = to_latex(Table("long", "Long", ("Method",), columns, (Block("b", rows),), ("Note.",)))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 1
    assert text.count(r"\label{tab:long}") == text.count("Note.") == 1
    continued = r"\addtocounter{table}{-1}" "\n" r"\caption{Long (continued)}"
    assert text.count(continued) == text.count(r"\begin{table}") - 1
    assert text.count("group ") == 9


def test_long_labels_take_several_lines_and_no_number_is_cut() -> None:
    rule = "-" * 62 + "\n"
    assert to_terminal(LONG) == (
        f"Long labels\n\n{rule}"
        "                                                    docstrings\n"
        "                                                  perplexity ↓\n"
        f"Method                              Sparsity  smollm2-135m-q4\n{rule}"
        "2:4\n"
        "Thanos                              50.0%               28.18\n"
        "ADMM (refine 20, sublayer, β=0.75,  50.0%               19.85*\n"
        f"  permuted, reconstruct 60)\n{rule}\n"
        "* best of each block.\n"
    )
    label = r"ADMM (refine 20, sublayer, $\beta$=0.75, \\ \quad permuted, reconstruct 60)"
    assert rf"\shortstack[l]{{{label}}} & 50.0\% & \textbf{{19.85}} \\" in to_latex(LONG)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(demo_runs: list[Run], results: ResultsFolder, tmp_path: Path) -> None:
    tables = to_latex(main_table(results.collect(demo_runs).results)) + to_latex(TABLE)
    tables += to_latex(LONG)
    source = tmp_path / "tables.tex"
    source.write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}" + tables + r"\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "too large for page" not in done.stdout
