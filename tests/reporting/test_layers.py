"""Where the loss is, from hand-made layer records."""

import json
from collections.abc import Callable
from pathlib import Path

from thanos.reporting.frame import collect_layers
from thanos.reporting.layers import layer_tables
from thanos.reporting.render import to_markdown

WriteRun = Callable[..., Path]


def layer(block: int, kind: str, error: float | None, sparsity: float = 0.5) -> dict:
    return {
        "block": block, "layer": f"model.layers.{block}.{kind}", "shape": [4, 4],
        "sparsity": sparsity, "relative_error": error, "seconds": 0.1, "damping": 0.01,
    }  # fmt: skip


def put(folder: Path, *layers: dict) -> Path:
    record = json.loads((folder / "pruning.json").read_text())
    (folder / "pruning.json").write_text(json.dumps({**record, "layers": layers}))
    return folder


def test_means_by_type_the_worst_layer_and_the_range_of_sparsity(write_run: WriteRun) -> None:
    runs = [
        put(
            write_run(method="thanos"),
            layer(0, "attn.q", 0.02), layer(0, "mlp.up", 0.30, 0.45),
            layer(1, "attn.q", 0.04), layer(1, "mlp.up", 0.10),
        ),
        put(write_run(method="wanda"), layer(0, "attn.q", None), layer(0, "mlp.up", None)),
        put(write_run("b"), layer(7, "fc1", 1.5)),
    ]  # fmt: skip

    other, first = layer_tables(collect_layers(runs))

    assert (other.name, first.name) == ("layers-b", "layers-doc-llama")
    assert [column.name for column in first.columns] == ["attn.q", "mlp.up", "in", "of the layers"]
    lines = to_markdown(first).splitlines()
    assert "| 2:4 | Thanos | 0.0300 | 0.200 | mlp.up of block 0: 0.300 | 45.0–50.0 |" in lines
    assert "| 2:4 | Wanda | — | — | — | 50.0 |" in lines
    assert "| 2:4 | Thanos | 1.50 | fc1 of block 7: 1.50 | 50.0 |" in to_markdown(other)
