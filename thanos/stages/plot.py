"""Make the figures of a suite as SVG, PNG and PDF.

python -m thanos.stages.plot results.csv --layers layers.csv --output figures [--axes …]
"""

import time
from pathlib import Path

import pandas as pd

from ..artifacts import atomic_folder, verify_text, write_manifest
from ..provenance import circumstances
from ..reporting.curves import layer_figure, sweep_figure
from ..reporting.figures import main_figure
from ..reporting.frame import from_csv
from ..reporting.heatmap import GRID_AXES, component_figure
from ..reporting.labels import DENSE, column_of
from ..reporting.measures import Measure, main_measures
from ..reporting.style import save
from .command import parser, run_command


def draw(frame: pd.DataFrame, layers: pd.DataFrame, axes: list[str], folder: Path) -> None:
    """Draw every figure of a suite into `folder`.

    An ablation of one key gets its metrics and the pruning time over it, the grid of components a
    heat map; a comparison of methods gets its metrics by pattern, and every layer's error.
    """
    measures = main_measures(frame)
    if len(axes) == 1:
        for measure in [*measures, Measure("seconds")]:
            name = "-".join(filter(None, (measure.metric, measure.dataset)))
            save(sweep_figure(frame, axes[0], measure), folder, name)
    elif tuple(map(column_of, axes)) == GRID_AXES:
        for measure in measures:
            figure = component_figure(frame, measure)
            save(figure, folder, f"components-{measure.metric}-{measure.dataset}")
    if axes:
        return
    for measure in measures:
        save(main_figure(frame, measure), folder, f"main-{measure.metric}-{measure.dataset}")
    pruned = layers.dropna(subset=["relative_error"])
    pruned = pruned[pruned["quantization"] == "none"]  # the others were pruned the same way
    for (model, pattern), _ in pruned[pruned["pattern"] != DENSE].groupby(["model", "pattern"]):
        name = f"layers-{model}-{str(pattern).replace(':', '-')}"
        save(layer_figure(pruned, str(model), str(pattern)), folder, name)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("results", type=Path)
    arguments.add_argument("--layers", type=Path, required=True)
    arguments.add_argument("--axes", nargs="*", default=[], help="keys that an ablation sweeps")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    started = time.time()
    for file in (given.results, given.layers):
        verify_text(file)
    frame = from_csv(given.results.read_text(encoding="utf-8"))
    layers = from_csv(given.layers.read_text(encoding="utf-8"))
    with atomic_folder(given.output) as folder:
        draw(frame, layers, given.axes, folder)
        write_manifest(folder, {"provenance": circumstances(started)})


if __name__ == "__main__":
    run_command(main)
