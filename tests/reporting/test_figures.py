"""Figures: drawn without pyplot, equal bytes for equal data, the method's look everywhere."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from results_folder import ResultsFolder, layer

from thanos.config import Run
from thanos.errors import UserError
from thanos.reporting.curves import layer_figure, sweep_figure
from thanos.reporting.figures import main_figure
from thanos.reporting.measures import Measure
from thanos.reporting.parts import parts_figure
from thanos.reporting.scales import loss_scale
from thanos.reporting.style import look, render, save


def test_the_main_figure_has_a_panel_per_model(
    demo_runs: list[Run], results: ResultsFolder
) -> None:
    figure = main_figure(results.collect(demo_runs).results)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["doc-llama (dense 32.56)", "doc-opt (dense 40.70)"]


def test_the_main_figure_is_the_same_every_time(
    demo_runs: list[Run], results: ResultsFolder, tmp_path: Path
) -> None:
    frame = results.collect(demo_runs[: len(demo_runs) // 2]).results
    figure = main_figure(frame)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Magnitude", "Wanda", "SparseGPT", "Thanos", "Thanos (α=0.1)", "Dense"]
    assert "122.2" in [text.get_text() for text in figure.axes[0].texts]
    paths = save(figure, tmp_path, "main")
    assert [path.name for path in paths] == ["main.svg", "main.png", "main.pdf"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert paths[2].read_bytes().startswith(b"%PDF")
    again = render(main_figure(frame))
    assert [again[path.suffix[1:]] for path in paths] == [path.read_bytes() for path in paths]
    assert b"<dc:date>" not in again["svg"]


def test_a_label_has_a_marker_of_its_own_in_its_methods_colour() -> None:
    plain, own = (look({"method": "thanos", "label": label}) for label in ("thanos", "tuned"))
    assert (plain.label, own.label) == ("Thanos", "tuned")
    assert own.colour == plain.colour
    assert own.marker != plain.marker
    assert own == look({"method": "thanos", "label": "tuned"})


def test_values_stay_inside_the_axes(demo_runs: list[Run], results: ResultsFolder) -> None:
    for measure in (Measure("perplexity", "docs"), Measure("mean_acc", "zero_shot")):
        figure = main_figure(results.collect(demo_runs).results, measure)
        figure.draw_without_rendering()
        for axes in figure.axes:
            frame = axes.get_window_extent()
            for text in axes.texts:
                box = text.get_window_extent()
                assert frame.x0 <= box.x0
                assert box.x1 <= frame.x1 + 1


@pytest.mark.parametrize("worst", [34.0, 45.0, 400.0, 90_000.0])
def test_labels_of_losses_do_not_touch(results: ResultsFolder, worst: float) -> None:
    runs = [
        results.run(pattern=pattern, method=method, perplexity=perplexity)
        for pattern, method, perplexity in [
            ("dense", "dense", 33.0),
            ("2:4", "thanos", (33.0 + worst) / 2),
            ("2:4", "wanda", worst),
        ]
    ]
    figure = main_figure(results.collect(runs).results)
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].get_xticklabels() if text.get_text()]
    boxes = [text.get_window_extent() for text in labels]
    assert len(boxes) >= 2
    assert "0" in [text.get_text() for text in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_the_callers_settings_survive(demo_runs: list[Run], results: ResultsFolder) -> None:
    with matplotlib.rc_context({"font.size": 31}):
        render(main_figure(results.collect(demo_runs[:6]).results))
        assert matplotlib.rcParams["font.size"] == 31


def test_a_sweep_has_a_panel_per_model_and_pattern(results: ResultsFolder) -> None:
    runs = [
        results.run(model, pattern, method, 30.0 + seed + 64 / size, block_size=size, seed=seed)
        for model in ("a", "b")
        for pattern in ("0.5", "2:4")
        for method in ("sparsegpt", "thanos")
        for size in (8, 64)
        for seed in (0, 1)
    ]
    runs.append(results.run("a", "dense", "dense", 30.5))
    figure = sweep_figure(results.collect(runs).results, "block_size")
    assert [axes.get_title() for axes in figure.axes] == [
        *("a, Unstructured 50%", "a, 2:4", "b, Unstructured 50%", "b, 2:4")
    ]
    assert figure.axes[2].get_xlabel() == "block size B (columns)"
    assert all(len(content) > 1000 for content in render(figure).values())


def test_a_sweep_far_above_the_dense_model_begins_at_its_results(results: ResultsFolder) -> None:
    runs = [
        results.run("a", pattern, "thanos", 40.0 + 64 / size, block_size=size)
        for pattern in ("0.5", "2:4")
        for size in (8, 64)
    ]
    runs.append(results.run("a", "dense", "dense", 20.0))
    figure = sweep_figure(results.collect(runs).results, "block_size")
    first = figure.axes[0]
    assert first.get_title() == "a (dense 20.00), Unstructured 50%"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Thanos"]
    low, high = first.get_ylim()
    assert 20 < 38 < low < 41
    assert high > 48
    assert sum(low <= tick <= high for tick in first.yaxis.get_majorticklocs()) >= 2


def test_long_titles_of_many_panels_take_more_lines(results: ResultsFolder) -> None:
    runs = [
        results.run("a-model-with-a-name", pattern, block_size=size)
        for pattern in ("unstructured:0.5", "4:8", "2:4")
        for size in (8, 64)
    ]
    figure = sweep_figure(results.collect(runs).results, "block_size")
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert all("a-model-with-a-name" in axes.get_title() for axes in figure.axes)


def test_a_legend_of_long_names_stays_inside(results: ResultsFolder) -> None:
    options = {
        **{"order": "sublayer", "correction": 0.75, "refine_steps": 20},
        **{"channel_permutation": True, "reconstruction_steps": 60},
    }
    run = results.run("a", "2:4", "admm", 9.0, options=options)
    runs = [run, results.run("a", "2:4", "thanos", 10.0), results.run("a", "dense", "dense", 8.0)]
    figure = main_figure(results.collect(runs).results)
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_a_sweep_over_texts(results: ResultsFolder) -> None:
    runs = [results.run(source=source, perplexity=p) for source, p in (("c4", 9.0), ("docs", 8.0))]
    figure = sweep_figure(results.collect(runs).results, "calibration_source")
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["c4", "docs"]


def test_a_sweep_over_options_that_go_together(results: ResultsFolder) -> None:
    shares = {"4:8": 0.0, "3:8": 0.2, "2:8": 1 / 3}
    runs = [results.run("a", pattern, alpha=alpha) for pattern, alpha in shares.items()]
    frame = results.collect(runs).results
    (axes,) = sweep_figure(frame, "outlier_fraction", along=["pattern"]).axes
    assert axes.get_title() == "a, n:8"
    assert len(axes.lines[0].get_xdata()) == 3


def test_layers(demo_runs: list[Run], results: ResultsFolder) -> None:
    figure = layer_figure(results.collect(demo_runs).layers, "doc-llama", "2:4")
    shown = [axes.get_title() for axes in figure.axes if axes.axison]
    assert shown[0] == "self_attn.q_proj"
    assert len(shown) == 7 + 1
    assert shown[-1] == "sparsity (%)"
    errors = {axes.get_ylim() for axes in figure.axes[:7]}
    assert len(errors) == 1  # one scale, so that layers can be compared


def test_layers_of_one_sparsity_are_drawn_whatever_their_mean_rounds_to(
    results: ResultsFolder,
) -> None:
    layers = [layer(0, kind, 0.1, 0.45) for kind in "abcdefg"]  # the mean is a bit above
    figure = layer_figure(results.collect([results.run(layers=layers)]).layers, "doc-llama", "2:4")
    assert figure.axes[-1].get_title() == "sparsity (%)"


def test_every_pattern_is_drawn_with_its_own_errors(results: ResultsFolder) -> None:
    runs = [
        results.run(
            pattern=pattern,
            layers=[layer(block, "mlp.up", 0.1 * factor + 0.01 * block) for block in range(4)],
        )
        for factor, pattern in enumerate(("2:4", "4:8", "0.5"), start=1)
    ]
    layers = results.collect(runs).layers
    for factor, pattern in enumerate(("2:4", "4:8", "0.5"), start=1):
        (line,) = layer_figure(layers, "doc-llama", pattern).axes[0].get_lines()
        drawn = np.asarray(line.get_ydata(), dtype=float)
        np.testing.assert_allclose(drawn, 0.1 * factor + 0.01 * np.arange(4))


def test_what_cannot_be_drawn_is_said(results: ResultsFolder) -> None:
    dense = results.collect([results.run(pattern="dense", method="dense")]).results
    with pytest.raises(UserError, match="no pruned run"):
        main_figure(dense)
    with pytest.raises(UserError, match="no pruned run"):
        sweep_figure(dense, "block_size")
    with pytest.raises(UserError, match="no layer records of x"):
        layer_figure(results.collect([results.run()]).layers, "x", "2:4")


def test_methods_look_the_same_everywhere() -> None:
    plain = look({"method": "thanos", "outlier_fraction": 0.0})
    hollow = look({"method": "thanos", "outlier_fraction": 0.1})
    assert (plain.colour, plain.marker) == (hollow.colour, hollow.marker)
    assert plain.marks()["markerfacecolor"] == plain.colour
    assert hollow.marks()["markerfacecolor"] == "white"
    others = [look({"method": name}) for name in ("magnitude", "wanda", "sparsegpt", "thanos")]
    assert len({entry.colour for entry in others}) == len({entry.marker for entry in others}) == 4


def test_the_loss_scale_is_invertible_on_both_sides_of_dense() -> None:
    scale = loss_scale(30.0)
    values = np.array([15.0, 29.9, 30.0, 31.0, 3000.0])
    np.testing.assert_allclose(scale.backward(scale.forward(values)), values)
    assert (np.diff(scale.forward(values)) > 0).all()


def test_figures_import_no_pyplot() -> None:
    code = (
        "import sys, thanos.reporting.figures, thanos.reporting.curves;"
        "print([m for m in ('torch', 'matplotlib.pyplot', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bars_of_a_pruning_are_as_long_as_it_took(
    demo_runs: list[Run], results: ResultsFolder
) -> None:
    figure = parts_figure(results.collect(demo_runs).results)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["doc-llama", "doc-opt"]
    for axes in figure.axes:
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels[-2:] == ["2:4, Thanos", "2:4, Thanos (α=0.1)"]
        bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
        assert max(bar.get_x() + bar.get_width() for bar in bars) == 3.5
        assert sum(bar.get_width() for bar in bars) == 3.5 * len(labels)


def test_runs_without_parts_have_no_bars(demo_runs: list[Run], results: ResultsFolder) -> None:
    frame = results.collect(demo_runs[:2]).results
    assert parts_figure(frame[~frame["metric"].str.startswith("seconds.")]) is None
