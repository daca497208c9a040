"""Where the loss is, from hand-made layer records."""

from results_folder import ResultsFolder, layer

from thanos.reporting.layers import layer_tables
from thanos.reporting.render import to_markdown


def test_means_by_type_the_worst_layer_and_the_range_of_sparsity(results: ResultsFolder) -> None:
    thanos = [
        layer(0, "attn.q", 0.02), layer(0, "mlp.up", 0.30, 0.45),
        layer(1, "attn.q", 0.04), layer(1, "mlp.up", 0.10),
    ]  # fmt: skip
    wanda = [layer(0, "attn.q", None), layer(0, "mlp.up", None)]
    runs = [
        results.run(method="thanos", layers=thanos),
        results.run(method="wanda", layers=wanda),
        results.run("b", layers=[layer(7, "fc1", 1.5)]),
    ]

    other, first = layer_tables(results.collect(runs).layers)

    assert (other.name, first.name) == ("layers-b", "layers-doc-llama")
    assert [column.name for column in first.columns] == ["attn.q", "mlp.up", "in", "of the layers"]
    lines = to_markdown(first).splitlines()
    assert "| 2:4 | Thanos | 0.0300 | 0.200 | mlp.up of block 0: 0.300 | 45.0–50.0 |" in lines
    assert "| 2:4 | Wanda | — | — | — | 50.0 |" in lines
    assert "| 2:4 | Thanos | 1.50 | fc1 of block 7: 1.50 | 50.0 |" in to_markdown(other)
