"""Suites: products of axes, overrides and errors that name suite and block."""

import pytest
import yaml

from thanos import suites
from thanos.errors import UserError
from thanos.suites import load_suite, suite_names


def test_every_suite_and_its_quick_variant_compose():
    assert {"demo", "paper", "ablation-block-size"} <= set(suite_names())
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
    assert len({run.calibration for run in runs}) == 6 * 3


def test_errors_name_suite_and_block(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "CONF", tmp_path)
    (tmp_path / "suite").mkdir()
    file = tmp_path / "suite" / "mine.yaml"

    def write(content):
        file.write_text(yaml.safe_dump(content))

    write({"runs": [{"method": "dense"}, {"method": ["thanos", "obs"]}]})
    with pytest.raises(UserError, match="suite mine, block 2: unknown method 'obs'"):
        load_suite("mine")
    write({"runs": [{"method": "thanos"}], "axes": []})
    with pytest.raises(UserError, match="suite mine: unknown key 'axes'"):
        load_suite("mine")
    write(["thanos"])
    with pytest.raises(UserError, match="suite mine: expected a mapping"):
        load_suite("mine")
    with pytest.raises(UserError, match="unknown suite 'yours'; known: mine"):
        load_suite("yours")
