"""The share of the gap to the dense model that options of the pruning pass close."""

import math

import pytest
from results_folder import ResultsFolder

from thanos.reporting.collecting import Collected
from thanos.reporting.gap import gap_tables
from thanos.reporting.gap_figure import gap_figures
from thanos.reporting.render import to_markdown
from thanos.stages.plot import _marks


def collected(results: ResultsFolder, plus: dict[str, object]) -> Collected:
    """Three seeds of Thanos, of it with options, and of Wanda, as losses (nats) above the dense."""
    runs = [results.run("a", "dense", "dense", math.exp(3.0))]
    for seed, noise in enumerate((0.01, 0.0, -0.01)):
        for method, options, loss in (
            ("thanos", {}, 3.4),
            ("thanos", plus, 3.3 if noise else 3.32),
            ("wanda", {}, 3.8),
        ):
            value = math.exp(loss + noise)
            runs.append(results.run("a", "2:4", method, value, seed=seed, options=dict(options)))
    return results.collect(runs)


def test_shares_are_of_losses_and_paired_over_seeds(results: ResultsFolder) -> None:
    found = collected(results, {"order": "sublayer"})
    (table,) = gap_tables(found.results, found.windows)
    lines = to_markdown(table).splitlines()
    # 0.1, 0.08 and 0.1 of 0.4: their mean, and t(2 degrees) times their standard error.
    half_width = 4.3027 * 100 / 0.4 * 0.0115470 / math.sqrt(3)
    assert f"| Thanos (sublayer) | **+23.3** ± {half_width:.1f} |" in lines
    assert "| Wanda | **-100.0** ± 0.0 |" in lines
    assert not any(line.startswith(("| Thanos |", "| Dense")) for line in lines)


@pytest.mark.parametrize(
    "options",
    [{"correction": 0.5}, {"reconstruction_steps": 9}, {"order": "sublayer", "refine_steps": 4}],
)
def test_options_that_make_the_table(results: ResultsFolder, options: dict[str, object]) -> None:
    found = collected(results, options)
    assert [table.name for table in gap_tables(found.results, found.windows)] == ["gap-docs"]
    ((_, figure),) = gap_figures(found.results)
    heights = [float(line.get_ydata()[0]) for line in figure.axes[0].lines[1:]]  # behind zero's
    assert heights == pytest.approx([0, 23.3], abs=0.1)  # Thanos, and with options; Wanda is below
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Thanos", "Thanos with options"]


def test_a_comparison_of_the_papers_methods_has_none(results: ResultsFolder) -> None:
    found = collected(results, {"refine_steps": 20})
    assert gap_tables(found.results, found.windows) == []
    assert gap_figures(found.results) == []


def test_without_a_dense_model_there_is_no_gap(results: ResultsFolder) -> None:
    frame = collected(results, {"correction": 1.0}).results
    assert gap_tables(frame[frame["pattern"] != "dense"]) == []


@pytest.mark.parametrize(
    ("alpha", "label", "options", "axes", "said"),
    [
        (0.0, "", {"correction": 0.5}, [], "; half filled: with other options."),
        (0.1, "", {}, [], "; hollow: with outlier rows."),
        (0.1, "", {}, ["outlier_fraction"], "."),
        (0.1, "", {"refine_steps": 5}, ["outlier_fraction"], "; half filled: with other options."),
        (0.0, "tuned", {"damping": 0.1}, [], "; with a label of its own: another marker."),
    ],
)
def test_a_caption_says_what_its_markers_mean(
    results: ResultsFolder,
    alpha: float,
    label: str,
    options: dict[str, object],
    axes: list[str],
    said: str,
) -> None:
    plain = results.run("a", "2:4", "thanos", 3.0)
    given = {"alpha": alpha, "label": label, "options": dict(options)}
    other = results.run("a", "2:4", "thanos", 2.9, **given)
    frame = results.collect([plain, other]).results
    assert _marks(frame, axes) == f"One colour and marker per method throughout{said}"


def test_the_legend_calls_a_method_by_its_label(results: ResultsFolder) -> None:
    on = {"correction": 0.75}
    runs = [results.run("a", "dense", "dense", 20.0), results.run("a", "0.5", "thanos", 30.0)]
    runs.append(results.run("a", "0.5", "thanos", 27.0, options=dict(on)))
    runs.append(results.run("a", "0.5", "admm", 25.0, label="mine", options=dict(on)))
    ((_, figure),) = gap_figures(results.collect(runs).results)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Thanos", "Thanos with options", "mine"]
    assert figure.axes[0].texts[0].get_text() == "closes most: mine (β=0.75)"


def test_what_is_said_of_a_panel_is_above_it_and_on_the_page(results: ResultsFolder) -> None:
    name = "a-model-with-a-very-long-name-on-128-windows"
    options = dict.fromkeys(("correction", "refine_steps", "reconstruction_steps"), 9)
    options |= {"order": "sublayer"}
    runs = [results.run(model, "dense", "dense", 20.0) for model in ("a", name)]
    for model in ("a", name):
        runs.append(results.run(model, "0.5", "thanos", 30.0))
        runs.append(results.run(model, "0.5", "thanos", 25.0, options=dict(options)))
    ((_, figure),) = gap_figures(results.collect(runs).results)
    figure.draw_without_rendering()
    for axes in figure.axes:
        panel, note, title = (
            each.get_window_extent() for each in (axes, axes.texts[0], axes.title)
        )
        assert panel.y1 <= note.y0 < note.y1 <= title.y0
        for text in (note, title):
            assert figure.bbox.x0 <= text.x0 < text.x1 <= figure.bbox.x1
            assert text.y1 <= figure.bbox.y1
