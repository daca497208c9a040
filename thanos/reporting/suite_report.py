"""The report of a suite: one HTML file with what was run, on what, when and from which revision."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from thanos.artifacts import read_json
from thanos.reporting.html import body_of, page
from thanos.reporting.labels import DENSE, method_label, pattern_label
from thanos.reporting.measures import main_measures, records, with_variants

CAPTIONS = "captions.json"
_STYLE = """
body { max-width: 78em; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2.2em; }
section { overflow-x: auto; }
figure { margin: 1.5em 0; } figcaption { max-width: 60em; color: #444; }
img { max-width: 100%; }
table.facts td { text-align: left; white-space: normal; vertical-align: top; }
details { margin-top: 1em; }
"""


def suite_report(suite: Path, title: str, frame: pd.DataFrame, origin: dict[str, Any]) -> str:
    """The page; tables and figures are those in the suite's folder.

    Args:
        suite: with `tables/` and `figures/`.
        title: of the suite.
        frame: its results, of `collect`.
        origin: where its results are from, of `Conditions.origin`.
    """
    tables = sorted((suite / "tables").glob("*.html"), key=_main_first)
    figures = sorted((suite / "figures").glob("*.svg"), key=_main_first)
    captions = read_json(suite / "figures" / CAPTIONS)
    shown = [_figure(file, captions[file.stem]) for file in figures]
    shown += [f"<section>{body_of(file.read_text(encoding='utf-8'))}</section>" for file in tables]
    facts = {**_grid(frame), **{name: "; ".join(values) for name, values in origin.items()}}
    return page(
        title,
        f"<h1>{escape(title)}</h1>\n<h2>What was run</h2>\n{_facts(facts)}\n"
        f"<h2>Results</h2>\n{''.join(shown)}\n<h2>Every run</h2>\n{_runs(frame)}\n",
        _STYLE,
    )


def _main_first(file: Path) -> tuple[bool, str]:
    return not file.stem.startswith("main"), file.stem


def _figure(file: Path, caption: str) -> str:
    content = base64.b64encode(file.read_bytes()).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{content}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def _grid(frame: pd.DataFrame) -> dict[str, str]:
    """The values that the runs take in what distinguishes them."""
    runs = with_variants(frame).drop_duplicates("run")
    pruned = runs[runs["pattern"] != DENSE]
    facts = {
        "Runs": f"{len(runs)}, of which {len(runs) - len(pruned)} of dense models",
        "Models": _listed(f"{row['model']} ({row['model_path']})" for row in records(runs)),
        "Methods": _listed(method_label(row) for row in records(runs)),
        "Patterns": _listed(pattern_label(text).title for text in sorted(pruned["pattern"])),
    }
    columns = {
        "Calibration": "calibration",
        "Calibration windows": "calibration_windows",
        "Seeds": "seed",
        "Block size B": "block_size",
        "Damping λ": "damping",
        "Evaluation": "evaluation",
    }
    for name, column in columns.items():
        values = sorted(
            value for value in pruned[column].unique() if value == value and value != ""
        )
        facts[name] = _listed(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    return {name: text for name, text in facts.items() if text}


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><th class="stub">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    return f'<table class="facts">{rows}</table>'


def _runs(frame: pd.DataFrame) -> str:
    """All runs with their headline numbers, folded."""
    measures = main_measures(frame)
    columns = {
        measure.title: measure.rows(frame).set_index("run")["value"].map(measure.text)
        for measure in measures
    }
    for metric in ("sparsity", "seconds"):
        values = frame[frame["metric"] == metric].set_index("run")["value"]
        columns[metric] = values.map("{:.3g}".format)
    heads = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f'<tr><td class="stub">{escape(run)}</td>'
        + "".join(f"<td>{escape(column.get(run, ''))}</td>" for column in columns.values())
        + "</tr>"
        for run in dict.fromkeys(frame["run"])
    )
    count = frame["run"].nunique()
    return (
        f"<details><summary>{count} runs: <code>runs.json</code> beside this report says where "
        f"each lies with its spec, records and logs</summary><table><thead><tr>"
        f'<th class="stub">run</th>{heads}</tr></thead><tbody>{body}</tbody></table></details>'
    )
