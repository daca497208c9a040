"""Composition, validation and identity of runs."""

import pytest

from thanos.config import Config, dumps, hash8, load, loads, options, resolve
from thanos.errors import UserError


@pytest.mark.parametrize("group", ["model", "calibration", "method", "evaluation", "tracking"])
def test_every_option_of_every_group_composes(group):
    needs_path = {"hf": "model.path=x", "text": f"{group}.path=x"}
    for name in options(group):
        overrides = [f"{group}={name}", *filter(None, [needs_path.get(name)])]
        assert isinstance(resolve(overrides), Config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.blocksize=64"], "unknown key 'method.blocksize'"),
        (["colour=red"], "unknown key 'colour'"),
        (["method.block_size=many"], "method.block_size: Value 'many'"),
        (["seed=first"], "seed: Value 'first'"),
        (["method=obs"], "unknown method 'obs'; known: dense, magnitude"),
        (["model=gpt-7"], "unknown model 'gpt-7'; known: doc-llama"),
        (["pattern=5:4"], "pattern '5:4': n:m keeps n of m weights"),
        (["pattern=1.0"], r"pattern '1.0': the sparsity must be in \[0, 1\)"),
        (["pattern=-0.1"], r"pattern '-0.1': the sparsity must be in \[0, 1\)"),
        (["pattern=half"], "pattern 'half' is not a sparsity pattern"),
        (["outlier_fraction=1"], r"outlier_fraction is 1; it must be in \[0, 1\)"),
        (["model=hf"], "key 'model.path' must be given"),
        (["calibration=text"], "key 'calibration.path' must be given"),
        (["evaluation=text"], "key 'evaluation.path' must be given"),
        (["calibration.windows=0"], "calibration.windows is 0"),
        (["method.damping=-1"], "method.damping is -1"),
        (["memory_budget=0"], "memory_budget is 0"),
        (["memory_budget=lots"], "memory_budget: Value 'lots'"),
        (["device=tpu"], "device is 'tpu'"),
        (["method.scope=residual", "method.update=none"], "scope 'residual' without an update"),
    ],
)
def test_bad_input_is_one_line_that_names_the_key(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve(overrides)
    assert "\n" not in str(caught.value)


def test_patterns_are_canonical():
    assert resolve(["pattern=0.5"]).pattern == "unstructured:0.5"
    assert resolve(["pattern=unstructured:0.50"]).pattern == "unstructured:0.5"
    assert resolve(["method=dense", "pattern=2:4"]).pattern == "dense"


def test_identity_ignores_where_a_run_is_computed_and_logged():
    here = resolve(["device=cpu", "tracking=disabled", "output_dir=x"])
    assert here.identity() == resolve([]).identity()
    assert resolve(["seed=1"]).identity() != resolve([]).identity()


def test_asking_for_latencies_is_no_other_run():
    asked = resolve(["evaluation.efficiency=true"])
    assert asked.evaluation.efficiency
    assert asked.identity() == resolve([]).identity()
    assert dumps(asked) == dumps(resolve([]))


def test_the_dense_run_is_one_run_in_every_sweep():
    first = resolve(["method=dense", "calibration.windows=1", "seed=3"])
    assert first.identity() == resolve(["method=dense"]).identity()


def test_hash_does_not_depend_on_the_order_of_keys():
    assert hash8({"a": 1, "b": {"c": 2, "d": 3}}) == hash8({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_written_configuration_is_read_back(tmp_path):
    config = resolve(["model=doc-opt", "method=wanda", "pattern=4:8", "outlier_fraction=0.1"])
    assert loads(dumps(config)).identity() == config.identity()
    file = tmp_path / "config.yaml"
    file.write_text(dumps(config) + "colour: red\n")
    with pytest.raises(UserError, match=r"config.yaml: .*colour"):
        load(file)


def test_secrets_have_no_place_in_a_configuration():
    text = dumps(resolve([])).lower()
    assert "token:" not in text
    assert "key:" not in text
