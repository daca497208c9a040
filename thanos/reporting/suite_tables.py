"""All tables of a suite, in the order in which a reader wants them; the first is the main one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from thanos.artifacts import verify_text
from thanos.reporting.ablations import ablation_table
from thanos.reporting.calibrations import calibrations_apart
from thanos.reporting.collecting import Collected
from thanos.reporting.differences import difference_tables
from thanos.reporting.efficiency import efficiency_tables
from thanos.reporting.frame import from_csv
from thanos.reporting.gap import gap_tables
from thanos.reporting.grid import Table
from thanos.reporting.labels import DENSE, pattern_label
from thanos.reporting.layer_types import layer_type_table
from thanos.reporting.layers import layer_tables
from thanos.reporting.measures import Measure, main_measures, task_measures
from thanos.reporting.published import PublishedTable
from thanos.reporting.recovery import recovered
from thanos.reporting.run_files import Listing
from thanos.reporting.tables import main_table, main_tables

# Options whose best value may differ between attention and MLP, for instance.
_PER_LAYER_TYPE = ("outlier_fraction", "method.block_size")


def read_collected(results: Path, layers: Path, windows: Path) -> Collected:
    """Read what `collect` found, from the files of `to_csv`, which are checked.

    Raises:
        UserError: one is missing or damaged.
    """
    for file in (results, layers, windows):
        verify_text(file)
    return Collected(
        *(from_csv(file.read_text(encoding="utf-8")) for file in (results, layers, windows))
    )


def suite_tables(
    listing: Listing,
    data: Collected,
    published: PublishedTable | None = None,
) -> list[Table]:
    """All tables of a suite: of an ablation where its list of runs names axes."""
    if listing.axes:
        return ablation_tables(data.results, data.layers, data.windows, listing.axes, listing.title)
    results, layers = map(calibrations_apart, (data.results, data.layers))
    tables = comparison_tables(results, data.windows, published, listing.title)
    return [*tables, *layer_tables(layers)]


def comparison_tables(
    frame: pd.DataFrame,
    windows: pd.DataFrame,
    published: PublishedTable | None = None,
    title: str = "",
) -> list[Table]:
    """The tables of a suite that compares methods: quality, differences, recovery, tasks, cost."""
    tables = [
        _titled(table, title, table.title.partition(": ")[2])
        for table in main_tables(frame, published, windows)
    ]
    tables += [_titled(table, title, table.title) for table in difference_tables(frame, windows)]
    tables += [_titled(table, title, table.title) for table in gap_tables(frame, windows)]
    shares = recovered(frame)
    for table in main_tables(shares, windows=windows) if main_measures(shares) else []:
        name = table.name.replace("main", "recovery", 1)
        measure = table.title.partition(": ")[2]
        what = ", ".join(filter(None, ("share of the dense model's quality", measure)))
        tables.append(_titled(replace(table, name=name), title, what))
    each = task_measures(frame)
    if len(each) > 1 or any(measure.metric != "acc" for measure in each):
        plain = all(measure.metric == "acc" for measure in each)
        what = "accuracy of every task" if plain else "every metric of every task"
        tables.append(_titled(main_table(frame, each, name="tasks"), title, what))
    return [*tables, *efficiency_tables(frame), *_seconds(frame, title)]


def ablation_tables(
    frame: pd.DataFrame,
    layers: pd.DataFrame,
    windows: pd.DataFrame,
    axes: Sequence[str],
    title: str = "",
) -> list[Table]:
    """The tables of an ablation: quality and differences over its axes, layer types, cost."""
    tables = []
    for kind, part in _comparable(frame, axes):
        for measure in main_measures(part):
            name = "-".join(filter(None, ("main", measure.metric, measure.dataset, kind)))
            table = ablation_table(part, axes, measure, windows=windows, name=name)
            tables.append(_titled(table, title, measure.title))
        for table in difference_tables(part, windows, axes):
            name = "-".join(filter(None, (table.name, kind)))
            tables.append(_titled(replace(table, name=name), title, table.title))
    if len(axes) == 1 and axes[0] in _PER_LAYER_TYPE:
        table_of_types = layer_type_table(layers, axes[0])
        tables += [_titled(table_of_types, title, table_of_types.title)] if table_of_types else []
    for kind, part in _comparable(frame, axes):
        for measure in (Measure("raised_damping"), Measure("seconds")):
            asked = measure.metric == "seconds" or list(axes) == ["method.damping"]
            if asked or (measure.rows(part)["value"] > 0).any():
                name = "-".join(filter(None, (measure.metric.replace("_", "-"), kind)))
                table = ablation_table(part, axes, measure, name=name)
                tables.append(_titled(table, title, measure.title))
    return tables


def _comparable(frame: pd.DataFrame, axes: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """The frame, or a part per kind of pattern.

    Over sparsities the kinds go to different lengths; in the grid of components they have
    different choices.
    """
    if len(axes) == 1 and axes[0] != "pattern":
        return [("", frame)]
    kinds = frame["pattern"].map(lambda text: pattern_label(text).kind)
    pruned = [kind for kind in dict.fromkeys(kinds) if kind != DENSE]
    return [(kind.replace(":", ""), frame[kinds.isin((DENSE, kind))]) for kind in pruned]


def _seconds(frame: pd.DataFrame, title: str) -> list[Table]:
    pruned = frame[frame["pattern"] != DENSE]
    measure = Measure("seconds")
    if measure.rows(pruned).empty:
        return []
    return [_titled(main_table(pruned, [measure], name="seconds"), title, measure.title)]


def _titled(table: Table, title: str, what: str = "") -> Table:
    """The table under the suite's title, followed by what this one of its tables shows."""
    parts = [part.removesuffix(" ↓").removesuffix(" ↑") for part in (title, what) if part]
    return replace(table, title=": ".join(parts)) if parts else table
