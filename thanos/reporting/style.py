"""The one visual language of all figures: a colour and a marker per method, sizes, file formats."""

import io
import textwrap
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from thanos.reporting.labels import DENSE, method_label, method_rank, own_label, variant_options

COLUMN_WIDTH = 3.5  # inches: one column of a two-column paper
TEXT_SIZE = 7.5
_DPI = 200
_CHARACTER = 0.058  # inches, on average, in the legend
_TITLE_CHARACTER = 0.078
_LEGEND_SYMBOL = 0.5
_LEGEND_LINE = 0.16
_GRID_COLOUR = "#D9D9D9"
DENSE_COLOUR = "#000000"
_INK = "#333333"
# Okabe and Ito's colour-blind safe palette; markers tell the methods apart in print as well.
_METHODS = {
    DENSE: (DENSE_COLOUR, "_"),
    "magnitude": ("#E69F00", "s"),
    "wanda": ("#009E73", "^"),
    "sparsegpt": ("#0072B2", "D"),
    "thanos": ("#D55E00", "o"),
}
_DENSE_LINE: dict[str, Any] = {"color": DENSE_COLOUR, "linewidth": 0.9, "linestyle": ":"}
# By α > 0 and other options.
_LINES = {(False, False): "-", (True, False): "--", (False, True): "-.", (True, True): ":"}
_OTHER = ("#CC79A7", "v")
# Of what is called otherwise than its method: by the label, so that it is the same everywhere.
_LABELLED = "PXp<>"
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs everywhere
    "font.size": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE + 0.5,
    "axes.titleweight": "bold",
    "axes.labelsize": TEXT_SIZE,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID_COLOUR,
    "grid.linewidth": 0.5,
    "xtick.labelsize": TEXT_SIZE,
    "ytick.labelsize": TEXT_SIZE,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": TEXT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "svg.hashsalt": "thanos",  # identifiers in the SVG follow from its content alone
    "pdf.fonttype": 42,
}
# No dates and no versions: the same data gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn: everywhere the same; α > 0 is hollow, other options half filled.

    A label of its own gives it a marker of its own, in its method's colour.
    """

    label: str
    colour: str
    marker: str
    alpha: bool
    options: bool

    def marks(self) -> dict[str, Any]:
        """Keyword arguments of markers alone."""
        return {
            "color": self.colour,
            "markerfacecolor": "white" if self.alpha and not self.options else self.colour,
            "fillstyle": {False: "full", True: "top" if self.alpha else "left"}[self.options],
            "marker": self.marker,
            "linestyle": "none",
            "markerfacecoloralt": "white",
            "markeredgewidth": 1.0,
        }

    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line with markers."""
        return {**self.marks(), "linestyle": _LINES[self.alpha, self.options]}


def look(row: Mapping[str, Any], without: tuple[str, ...] = ()) -> Look:
    """The look of a row with `method` and variant columns, those in `without` left aside."""
    colour, marker = _METHODS.get(row["method"], _OTHER)
    if "label" not in without and (label := own_label(row)):
        marker = _LABELLED[zlib.crc32(label.encode()) % len(_LABELLED)]
    options = set(variant_options(row, without))
    alpha = "outlier_fraction" in options
    others = bool(options - {"outlier_fraction"})
    return Look(method_label(row, without), colour, marker, alpha, others)


def looks(rows: list[dict[Any, Any]], without: tuple[str, ...] = ()) -> list[Look]:
    """The distinct looks of rows, in the order of methods."""
    return list(dict.fromkeys(look(row, without) for row in sorted(rows, key=method_rank)))


def dense_line(axes: Axes, means: pd.DataFrame, direction: str) -> float | None:
    """Draw the dense model's mean as a dotted line, if `means` has it, and return it."""
    dense = means.loc[means["pattern"] == DENSE, "mean"]
    if dense.empty:
        return None
    draw = axes.axvline if direction == "vertical" else axes.axhline
    draw(dense.iloc[0], zorder=1, **_DENSE_LINE)
    return float(dense.iloc[0])


def legend(
    figure: Figure,
    rows: list[dict[Any, Any]],
    *,
    without: tuple[str, ...] = (),
    dense: bool = False,
    lines: bool = False,
) -> None:
    """One legend above all panels, in the order of methods; see `place_legend`."""
    handles = []
    for entry in looks(rows, without):
        kwargs = entry.line() if lines else entry.marks()
        handles.append(Line2D([], [], label=entry.label, **kwargs))
    if dense:
        handles.append(Line2D([], [], label="Dense", **_DENSE_LINE))
    place_legend(figure, handles)


def place_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend above all panels, as many to a row as fit; the figure grows by its height."""
    available = figure.get_figwidth()
    for handle in handles:
        most = int((available - _LEGEND_SYMBOL) / _CHARACTER)
        handle.set_label(textwrap.fill(str(handle.get_label()), most))
    labels = [str(handle.get_label()).split("\n") for handle in handles]
    widths = [_LEGEND_SYMBOL + max(map(len, lines)) * _CHARACTER for lines in labels]
    per_row = len(handles) if sum(widths) < available else max(1, int(available / max(widths)))
    lines = sum(map(len, labels)) if per_row == 1 else -(-len(handles) // per_row)
    figure.set_figheight(figure.get_figheight() + lines * _LEGEND_LINE)
    figure.legend(handles=handles, loc="outside upper center", ncols=min(per_row, len(handles)))


def panel_title(model: str, panel: str, width: float) -> str:
    """The title of a panel so many inches wide: in one line where that fits."""
    characters = int(width / _TITLE_CHARACTER)
    if len(model) + len(panel) + 2 <= characters:
        return f"{model}, {panel}"
    kept = model.replace("(dense ", "(dense\N{NO-BREAK SPACE}")
    lines = [textwrap.fill(part, characters) for part in (f"{kept},", panel)]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's settings for the time of drawing or saving; the caller's come back after it."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure (inches) that draws with Agg and lays itself out; no pyplot state."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure) -> dict[str, bytes]:
    """The figure as `svg`, `png` (200 dpi) and `pdf`; equal figures give equal bytes."""
    files = {}
    with house_style():
        if figure.get_layout_engine() is not None:  # find the layout once, for all formats alike
            figure.draw_without_rendering()
            figure.draw_without_rendering()  # the second pass has the widths of all labels
            figure.set_layout_engine("none")
        for kind, metadata in _METADATA.items():
            output = io.BytesIO()
            figure.savefig(output, format=kind, dpi=_DPI, metadata=metadata)
            files[kind] = output.getvalue()
    return files


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.svg`, `.png` and `.pdf` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, content in render(figure).items():
        path = folder / f"{name}.{kind}"
        path.write_bytes(content)
        paths.append(path)
    return paths
