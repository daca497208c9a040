"""Make the figures of a suite as SVG, PNG and PDF.

python -m thanos.stages.plot results.csv --runs runs.json --layers layers.csv --output figures
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from .. import layout
from ..artifacts import atomic_folder, verify_text, write_json, write_manifest
from ..command import parser, run_command
from ..errors import UserError
from ..identity.fingerprints import stage_fingerprint
from ..provenance import provenance
from ..reporting.calibrations import calibrations_apart
from ..reporting.curves import axis_title, layer_figure, sweep_figure
from ..reporting.efficiency import SERVING
from ..reporting.figures import main_figure
from ..reporting.frame import from_csv
from ..reporting.gap_figure import gap_figures
from ..reporting.heatmap import GRID_AXES, component_figure
from ..reporting.labels import (
    DENSE,
    VARIANT_COLUMNS,
    column_of,
    file_name,
    pattern_label,
    variant_options,
)
from ..reporting.measures import (
    FROM_DENSE,
    Measure,
    main_measures,
    only_pruned,
    records,
    with_variants,
)
from ..reporting.parts import parts_figure
from ..reporting.run_files import read_listing
from ..reporting.serving import serving_figure
from ..reporting.style import save

_SWEEP = (
    "Bars are 95% intervals over seeds, the dotted line is the dense model; where all results are "
    "far from it, it is in the titles."
)
_BESIDE_DENSE = "Bars are 95% intervals over seeds."
_PARTS = "Where the seconds of pruning go, with other jobs beside it; means over seeds."
_TIME = "Wall time, with other jobs beside it."
_DOTS = "Placed by the distance to the dense model; bars are 95% intervals over seeds."
_GAP = (
    "Share of the gap in log perplexity between Thanos and the dense model that is closed, over "
    "the seconds that pruning the model took, with other jobs beside it."
)
_GRID = (
    "loss over the dense model in percent, by the mask's metric (down), its scope (above) and the "
    "update of the remaining weights (below)."
)
_LAYERS = "Relative error of every layer over depth, by type of layer."

_SERVING = (
    "Tokens per second of prefill and decoding, dense beside pruned in one process, and what the "
    "machine allows at the most for the products with weights."
)

# What the time to prune depends on.
_TIMED = ("method.block_size", "calibration.windows", "pattern")


def draw(frame: pd.DataFrame, layers: pd.DataFrame, axes: list[str], folder: Path) -> None:
    """Draw every figure of a suite into `folder`; `captions.json` says what each shows.

    An ablation of one key, or of several that go together, gets its metrics, and the pruning time,
    over it; the grid of components a heat map; a comparison of methods gets its metrics by pattern,
    and every layer's error.
    """
    drawn = {}
    for name, figure, table, caption in _figures(frame, layers, axes):
        save(figure, folder, name)
        drawn[name] = {"caption": caption, "table": table}
    write_json(folder / layout.CAPTIONS, drawn)


def _figures(
    frame: pd.DataFrame, layers: pd.DataFrame, axes: list[str]
) -> Iterator[tuple[str, Figure, str, str]]:
    """Name, figure, the table that has its numbers (or begins the names of several), caption."""
    if not axes:
        frame, layers = map(calibrations_apart, (frame, layers))
    measures = main_measures(frame)
    marks = _marks(frame, axes)
    if axes and _go_together(frame, axes):
        over = axis_title(axes[0])
        for measure in measures:
            name = f"main-{measure.metric}-{measure.dataset}"
            how = _BESIDE_DENSE if measure.metric in FROM_DENSE else _SWEEP
            caption = f"{measure.title[:-2].capitalize()} over {over}. {how} {marks}"
            yield name, sweep_figure(frame, axes[0], measure, axes[1:]), name, caption
        if axes[0] in _TIMED:
            figure = sweep_figure(frame, axes[0], Measure("seconds"), axes[1:])
            yield "seconds", figure, "seconds", f"Pruning time over {over}. {_TIME} {marks}"
    elif tuple(map(column_of, axes)) == GRID_AXES:
        for measure in (each for each in measures if each.metric not in FROM_DENSE):
            table = f"main-{measure.metric}-{measure.dataset}"
            name = table.replace("main", "main-components", 1)
            figure = component_figure(frame, measure)
            yield name, figure, table, f"{measure.title[:-2].capitalize()}: {_GRID}"
    timed = frame[frame["metric"].str.startswith(SERVING)]
    for (model, pattern), _ in timed.groupby(["model", "pattern"]):
        name = file_name("serving", str(model), str(pattern))
        caption = f"{model}, {pattern_label(str(pattern)).title}. {_SERVING}"
        yield name, serving_figure(timed, str(model), str(pattern)), "prefill", caption
    if axes:
        return
    for measure in measures:
        name = f"main-{measure.metric}-{measure.dataset}"
        how = _BESIDE_DENSE if measure.metric in FROM_DENSE else _DOTS
        caption = f"{measure.title[:-2].capitalize()}. {how} {marks}"
        yield name, main_figure(frame, measure), name, caption
    for measure, figure in gap_figures(frame):
        name = f"gap-{measure.dataset}"
        yield name, figure, name, f"{_GAP} {marks}"
    pruned = layers.dropna(subset=["relative_error"])
    pruned = only_pruned(pruned)  # the others were pruned the same way
    for (model, pattern), _ in pruned[pruned["pattern"] != DENSE].groupby(["model", "pattern"]):
        name, table = file_name("layers", str(model), str(pattern)), file_name("layers", str(model))
        caption = f"{model}, {pattern_label(str(pattern)).title}. {_LAYERS} {marks}"
        yield name, layer_figure(pruned, str(model), str(pattern)), table, caption
    if (parts := parts_figure(frame)) is not None:
        yield "seconds-by-part", parts, "seconds", _PARTS


def _marks(frame: pd.DataFrame, axes: list[str]) -> str:
    """What markers mean; an option over which a figure is drawn has none."""
    drawn = tuple(map(column_of, axes))
    rows = records(with_variants(frame)[list(VARIANT_COLUMNS)].drop_duplicates())
    options = {option for row in rows for option in variant_options(row, drawn)}
    said = ["One colour and marker per method throughout"]
    if (with_variants(frame)["label"] != "").any():
        said.append("with a label of its own: another marker")
    if "outlier_fraction" in options:
        said.append("hollow: with outlier rows")
    if options - {"outlier_fraction"}:
        said.append("half filled: with other options")
    return "; ".join(said) + "."


def _go_together(frame: pd.DataFrame, axes: list[str]) -> bool:
    """Whether the value of the first axis says those of the others.

    Raises:
        UserError: one is no column of the results.
    """
    first, *others = map(column_of, axes)
    if unknown := {first, *others} - {*frame.columns}:
        raise UserError(f"figure: the results have no column {', '.join(sorted(unknown))}")
    values = frame[frame["pattern"] != DENSE].groupby(first)
    return all((values[other].nunique() <= 1).all() for other in others)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--layers", type=Path, required=True)
    arguments.add_argument("--runs", type=Path, required=True, help="the suite's list of runs")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started, found = time.time(), stage_fingerprint("plot")
    for file in (given.results, given.layers):
        verify_text(file)
    frame = from_csv(given.results.read_text(encoding="utf-8"))
    layers = from_csv(given.layers.read_text(encoding="utf-8"))
    with atomic_folder(given.output) as folder:
        draw(frame, layers, read_listing(given.runs).axes, folder)
        write_manifest(folder, {"provenance": provenance(started, found)})


if __name__ == "__main__":
    run_command(main)
