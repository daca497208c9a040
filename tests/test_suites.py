"""Suites: products of axes, overrides and errors that name suite and block."""

import pytest
import yaml

from thanos import suites
from thanos.errors import UserError
from thanos.suites import load_suite, suite_names


def test_every_suite_and_its_quick_variant_compose():
    ablations = ("block-size", "calibration", "components", "damping", "outliers", "quantization")
    ablations += ("sparsity",)
    expected = {"demo", "paper", "first-experiments", *(f"ablation-{name}" for name in ablations)}
    assert expected <= set(suite_names())
    for name in suite_names():
        whole, quick = load_suite(name), load_suite(name, quick=True)
        assert 0 < len(quick.runs) < len(whole.runs)


def test_the_demo_has_forty_runs():
    runs = load_suite("demo").runs
    assert len(runs) == 40
    assert len({run.identifier for run in runs}) == 40
    assert sum(run.config.dense for run in runs) == 2


def test_a_run_keeps_its_folder_in_every_suite():
    demo = {run.identifier for run in load_suite("demo", ["evaluation=perplexity"]).runs}
    sweep = {
        run.identifier
        for run in load_suite("ablation-outliers", ["outlier_fraction=0", "pattern=2:4"]).runs
    }
    assert sweep <= demo


def test_overrides_replace_axes_but_leave_the_dense_reference():
    suite = load_suite("demo", ["model=doc-opt", "method=thanos,wanda", "method.damping=0.1"])
    assert {run.config.model.name for run in suite.runs} == {"doc-opt"}
    assert {run.config.method.name for run in suite.runs} == {"dense", "thanos", "wanda"}
    assert {run.config.method.damping for run in suite.runs if not run.config.dense} == {0.1}


def test_calibration_is_shared_by_methods_but_not_by_seeds():
    runs = load_suite("ablation-calibration").runs
    assert len({run.calibration for run in runs} - {None}) == 6 * 3 * 3


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the only suite, `mine`."""
    monkeypatch.setattr(suites, "CONF", tmp_path)
    (tmp_path / "suite").mkdir()
    file = tmp_path / "suite" / "mine.yaml"
    return lambda content: file.write_text(yaml.safe_dump(content))


def points(name="mine", **options):
    """Method, pattern and block size of a suite's runs."""
    configs = [run.config for run in load_suite(name, **options).runs]
    return [(c.method.name, c.pattern, c.method.block_size) for c in configs]


def test_excluded_points_are_left_out(write):
    axes = {"method": ["dense", "wanda", "thanos"], "pattern": ["2:4", "4:8"]}
    write({"runs": [axes], "exclude": [{"method": ["wanda", "magnitude"], "pattern": "4:8"}]})
    assert points() == [
        ("dense", "dense", None),
        ("wanda", "2:4", None),
        ("thanos", "2:4", None),
        ("thanos", "4:8", None),
    ]


def test_variants_are_named_overrides(write):
    variants = {"small blocks": {"method.block_size": 8}, "4:8": {"pattern": "4:8"}}
    write({"runs": [{"variant": ["small blocks", "4:8"], "pattern": "2:4"}], "variants": variants})
    assert points() == [("thanos", "2:4", 8), ("thanos", "4:8", None)]
    assert points(overrides=["method.block_size=16"]) == [
        ("thanos", "2:4", 16),
        ("thanos", "4:8", 16),
    ]
    write({"runs": [{"variant": "large"}], "variants": variants})
    with pytest.raises(UserError, match="mine, block 1, axis variant: unknown 'large'; known: 4:8"):
        load_suite("mine")


def test_errors_name_suite_and_axis(write):
    write({"runs": [{"method": "dense"}, {"method": ["thanos", "obs"], "seed": [0, 1]}]})
    with pytest.raises(UserError, match="suite mine, block 2, axis method: unknown method 'obs'"):
        load_suite("mine")
    write({"runs": [{"method": "thanos", "method.blocksize": [8, 16]}]})
    with pytest.raises(UserError, match=r"mine, block 1, axis method.blocksize: unknown key"):
        load_suite("mine")
    write({"runs": [{"method": "thanos", "pattern": ["2:4", "5:4"]}]})
    with pytest.raises(UserError, match="mine, block 1, axis pattern: pattern '5:4'"):
        load_suite("mine")
    write({"runs": [{"method": "thanos"}], "axis": "method.damping"})
    with pytest.raises(UserError, match=r"suite mine: axis 'method\.damping' is no key of its"):
        load_suite("mine")
    write({"runs": [{"method": "thanos"}], "axes": []})
    with pytest.raises(UserError, match="suite mine: unknown key 'axes'"):
        load_suite("mine")
    write(["thanos"])
    with pytest.raises(UserError, match="suite mine: expected a mapping"):
        load_suite("mine")
    with pytest.raises(UserError, match="unknown suite 'yours'; known: mine"):
        load_suite("yours")
