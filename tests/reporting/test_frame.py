"""The tidy frame: what it holds, and what it refuses."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from thanos.errors import UserError
from thanos.reporting.frame import COLUMNS, collect, collect_layers, from_csv, to_csv

WriteRun = Callable[..., Path]


def test_one_row_per_run_and_metric(write_run: WriteRun) -> None:
    frame = collect([write_run(perplexity=33.94, alpha=0.1, acc=73.5, block_size=512)])
    assert tuple(frame.columns) == COLUMNS
    values = {(row.metric, row.dataset): row.value for row in frame.itertuples()}
    assert values == {
        ("acc", "docs_choice"): 73.5,
        ("loss", "docs"): 3.5,
        ("mean_acc", "zero_shot"): 73.5,
        ("peak_memory_bytes", ""): 123456789,
        ("perplexity", "docs"): 33.94,
        ("raised_damping", ""): 0,
        ("relative_error", ""): 0.02,
        ("seconds", ""): 3.5,
        ("sparsity", ""): 0.45,
    }
    first = frame[frame["metric"] == "perplexity"].iloc[0]
    assert first["run"].startswith("doc-llama/2-4/thanos-")
    assert (first["model"], first["method"], first["pattern"]) == ("doc-llama", "thanos", "2:4")
    assert (first["outlier_fraction"], first["seed"], first["nominal_sparsity"]) == (0.1, 0, 0.5)
    assert (first["block_size"], first["calibration_windows"], first["context"]) == (512, 64, 256)


def test_pattern_texts_become_canonical(write_run: WriteRun) -> None:
    frame = collect([write_run(pattern="0.5"), write_run(pattern="dense", method="dense")])
    assert set(frame["pattern"]) == {"unstructured:0.5", "dense"}


def test_the_order_of_folders_does_not_matter(demo_runs: list[Path]) -> None:
    pd.testing.assert_frame_equal(collect(demo_runs), collect(demo_runs[::-1] + demo_runs[:3]))


def test_csv_gives_back_every_bit(demo_runs: list[Path], write_run: WriteRun) -> None:
    frame = collect([*demo_runs, write_run(perplexity=0.1 + 0.2, seed=5)])
    text = to_csv(frame)
    assert "0.30000000000000004" in text
    pd.testing.assert_frame_equal(from_csv(text), frame)
    assert to_csv(from_csv(text)) == text


def test_layers(write_run: WriteRun) -> None:
    layers = collect_layers([write_run()])
    assert len(layers) == 4 * 7
    last = layers.iloc[-1]
    assert (last["block"], last["layer_type"], last["rows"]) == (3, "mlp.down_proj", 256)


def test_efficiency_is_flattened(write_run: WriteRun) -> None:
    folder = write_run()
    content = {"latency": {"dense_ms": 4.0, "pruned_ms": None}, "device": "cpu"}
    (folder / "efficiency.json").write_text(json.dumps(content))
    metrics = collect([folder]).set_index("metric")["value"]
    assert metrics["efficiency.latency.dense_ms"] == 4.0
    assert "efficiency.latency.pruned_ms" not in metrics


def test_sizes_and_the_form_of_a_timing(write_run: WriteRun) -> None:
    folder = write_run()
    (folder / "size.json").write_text(json.dumps({"bytes": {"dense": 400, "packed": 225}}))
    timing = {"form": "compact", "device": "cpu", "forward": {"dense_ms": 4.0}}
    (folder / "efficiency.json").write_text(json.dumps(timing))
    rows = collect([folder]).set_index("metric")
    assert rows.loc["size.bytes.packed", "value"] == 225
    assert rows.loc["efficiency.forward.dense_ms", "source"] == "compact on cpu"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("perplexity.json", '{"corpora": {"docs": {"perplexity": NaN}}}', "docs.perplexity is nan"),
        (
            "perplexity.json",
            '{"corpora": {"docs": {"perplexity": 1e999}}}',
            "docs.perplexity is inf",
        ),
        ("pruning.json", '{"layers": [{"relative_error": NaN}]}', r"layers\[0\].relative_error"),
        ("perplexity.json", '{"docs": {"perplexity"', "is damaged"),
        ("perplexity.json", '{"corpora": {"docs": {"loss": 3}}}', "lacks 'perplexity'"),
        ("perplexity.json", None, "does not exist"),
        ("pruning.json", None, "does not exist"),
        ("config.yaml", None, "does not exist"),
        ("config.yaml", "seed: 0\n", "no key 'model'"),
        ("config.yaml", "a: [", "cannot be read"),
    ],
)
def test_a_bad_file_is_refused_by_name(
    write_run: WriteRun, file: str, content: str | None, message: str
) -> None:
    folder = write_run()
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        collect([folder])
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_pattern_names_the_config(write_run: WriteRun) -> None:
    folder = write_run()
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"pattern": "4:2"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"config.yaml: pattern '4:2': expected"):
        collect([folder])


def test_configured_tasks_must_have_a_result(write_run: WriteRun) -> None:
    folder = write_run(acc=70.0)
    (folder / "zero_shot.json").unlink()
    with pytest.raises(UserError, match=r"zero_shot.json does not exist"):
        collect([folder])


def test_tables_start_without_heavy_imports() -> None:
    code = (
        "import sys, thanos.reporting.frame, thanos.reporting.tables, thanos.reporting.ablations,"
        "thanos.reporting.render, thanos.tracking;"
        "print([m for m in ('torch', 'matplotlib', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
