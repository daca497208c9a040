"""Composition, validation and identity of runs."""

import json

import pytest

from thanos.config import Config, RunBuilder, dumps, options, refuse_unused, resolve
from thanos.errors import UserError
from thanos.identity import EvaluationSpec
from thanos.identity.spec import digest, read_spec
from thanos.paths import PROJECT


def run_of(*overrides):
    return RunBuilder().run(resolve(overrides))


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
        (["method=obs"], "unknown method 'obs'; known: admm"),
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
        (["method.correction=-1"], "method.correction is -1"),
        (["method.label=Wanda"], "method.label 'Wanda' of method thanos is another method's name"),
        (["method.order=layer"], "method.order is 'layer'; expected block, sublayer"),
        (["method=admm", "method.schedule=21"], "schedule 21 must lie between 0 and the 20"),
        (["method=admm", "method.penalty=0"], "penalty 0 must be positive"),
        (["memory_budget=0"], "memory_budget is 0"),
        (["memory_budget=lots"], "memory_budget: Value 'lots'"),
        (["device=tpu"], "device is 'tpu'"),
        (["method.scope=residual", "method.update=none"], "scope 'residual' without an update"),
        (["method.update=alternating"], "scope 'residual' with update 'alternating'"),
    ],
)
def test_bad_input_is_one_line_that_names_the_key(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve(overrides)
    assert "\n" not in str(caught.value)


def test_patterns_are_canonical():
    half = run_of("pattern=0.5")
    assert str(half.pruning.pattern) == half.columns["pattern"] == "unstructured:0.5"
    assert run_of("pattern=unstructured:0.50").evaluation == half.evaluation
    assert run_of("pattern=0.00001").columns["pattern"] == "unstructured:1e-05"
    assert run_of("pattern=0.5000001").evaluation.id != half.evaluation.id
    assert run_of("method=dense", "pattern=2:4").columns["pattern"] == "dense"


def test_identity_ignores_where_a_run_is_computed_and_logged():
    here = run_of("device=cpu", "tracking=disabled", "output_dir=x")
    assert (here.evaluation, here.name) == (run_of().evaluation, run_of().name)
    assert run_of("seed=1").evaluation.id != run_of().evaluation.id


def test_asking_for_latencies_is_no_other_run():
    asked = run_of("evaluation.efficiency=true")
    assert asked.latency is not None
    assert (asked.evaluation, asked.name) == (run_of().evaluation, run_of().name)


def test_the_dense_run_is_one_run_in_every_sweep():
    first = run_of("method=dense", "calibration.windows=1", "seed=3")
    assert first.pruning is None
    assert (first.evaluation, first.name) == (
        run_of("method=dense").evaluation,
        run_of("method=dense").name,
    )


def test_hash_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_written_spec_is_read_back(tmp_path):
    spec = run_of("model=doc-opt", "method=wanda", "pattern=4:8", "outlier_fraction=0.1").evaluation
    assert read_spec(EvaluationSpec, json.dumps(spec.to_json())) == spec
    file = tmp_path / "evaluation.json"
    file.write_text(json.dumps({"spec": spec.to_json(), "corpora": {}}))
    assert read_spec(EvaluationSpec, str(file)) == spec
    file.write_text(json.dumps({**spec.to_json(), "colour": "red"}))
    with pytest.raises(UserError, match=r"evaluation.json is no EvaluationSpec .*colour"):
        read_spec(EvaluationSpec, str(file))


# Overrides that are refused for the last one's key, and the choice that has no use for it.
USELESS = [
    (["method=wanda", "method.damping=0.1"], "method wanda with pattern unstructured:0.5"),
    (["method=magnitude", "method.damping=0.1"], "method magnitude with pattern unstructured:0.5"),
    (["method=wanda", "method.block_size=8"], "method wanda with pattern unstructured:0.5"),
    (
        ["pattern=structured:0.3", "method.block_size=8"],
        "method thanos with pattern structured:0.3",
    ),
    (["calibration.path=README.md"], "calibration source docstrings"),
    (["evaluation.path=README.md"], "evaluation testbed"),
    (["evaluation=perplexity", "evaluation.limit=8"], "evaluation perplexity, which has no task"),
    (["evaluation.corpora=[]", "evaluation.max_windows=8"], "evaluation testbed, which has no c"),
    (["outlier_score=separable"], "outlier_fraction=0"),
    (["method.iterations=9"], "method thanos with pattern unstructured:0.5"),
    (["method=sparsegpt", "method.penalty=2"], "method sparsegpt with pattern unstructured:0.5"),
    (["method=wanda", "method.schedule=9"], "method wanda with pattern unstructured:0.5"),
    (
        ["method=admm", "method.block_size=8"],
        "method admm with pattern unstructured:0.5",
    ),
    (
        ["method=magnitude", "layer_errors=false", "method.order=sublayer"],
        "method magnitude with pattern unstructured:0.5 and layer_errors=false",
    ),
    (["method=dense", "method.correction=0.5"], "method dense"),
    (["method=dense", "method.channel_permutation=true"], "method dense"),
    (["method.channel_permutation=true"], "method thanos with pattern unstructured:0.5"),
    (
        ["method=thanos-plus", "pattern=structured:0.3", "method.channel_permutation=true"],
        "method thanos-plus with pattern structured:0.3",
    ),
    (["method=dense", "method.reconstruction_steps=9"], "method dense"),
    (["pattern=2:4", "method.allocation=uniform"], "method thanos with pattern 2:4"),
    (
        ["method=thanos-plus", "pattern=4:8", "method.allocation=owl"],
        "method thanos-plus with pattern 4:8 and method.allocation_mixed=false",
    ),
    (["pattern=structured:0.3", "method.allocation=owl"], "method thanos with pattern structured"),
    (["method.allocation=owl", "method.allocation_mixed=true"], "method thanos with pattern unstr"),
    (
        ["pattern=2:4", "method.allocation_mixed=true"],
        "method thanos with pattern 2:4 and method.allocation=uniform",
    ),
    (["method=dense", "method.allocation_mixed=true"], "method dense"),
    *(
        (
            ["method=thanos-plus", f"pattern={pattern}", "method.allocation_mixed=true"],
            f"method thanos-plus with pattern {pattern}",
        )
        for pattern in ("1:4", "3:4", "1:2", "7:8")
    ),
    (
        ["method.allocation_spread=0.1"],
        "method thanos with pattern unstructured:0.5 and method.allocation=uniform",
    ),
    (
        ["method.reconstruction_batch=2"],
        "method thanos with pattern unstructured:0.5 and method.reconstruction_steps=0",
    ),
    (
        ["method.reconstruction_precision=bfloat16"],
        "method thanos with pattern unstructured:0.5 and method.reconstruction_steps=0",
    ),
    (["method=dense", "pattern=2:4"], "method dense"),
    (["method=dense", "seed=1"], "method dense"),
    (["recovery.steps=9"], "recovery=none"),
    (["recovery=full", "recovery.rank=4"], "recovery.weights=all"),
    (["recovery=lora", "recovery.path=README.md"], "recovery source docstrings"),
    (["pattern=2:4", "method.scope=residual"], "method thanos with pattern 2:4"),
    (
        ["method=magnitude", "layer_errors=false", "calibration.windows=8"],
        "method magnitude with pattern unstructured:0.5 and layer_errors=false",
    ),
]


@pytest.mark.parametrize(("overrides", "choice"), USELESS)
def test_a_key_that_the_choices_do_not_use_is_refused(overrides, choice):
    key = overrides[-1].partition("=")[0]
    with pytest.raises(UserError, match=f"^key '{key}' is not used by {choice}.*; leave it out$"):
        refuse_unused(resolve(overrides), overrides)
    # The table says the truth: nothing that is made would be another thing.
    with_it, without = run_of(*overrides), run_of(*overrides[:-1])
    assert (with_it.evaluation, with_it.columns) == (without.evaluation, without.columns)


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=thanos", "method.damping=0.1"],
        ["method=wanda", "method.update=joint", "method.damping=0.1"],
        ["method=thanos", "method.block_size=8"],
        ["method=sparsegpt", "pattern=structured:0.3", "method.block_size=8"],
        ["calibration=wikitext2", "calibration.path=README.md"],
        ["evaluation.corpora=[text]", "evaluation.path=README.md"],
        ["evaluation=testbed", "evaluation.limit=8"],
        ["evaluation=perplexity", "evaluation.max_windows=8"],
        ["outlier_fraction=0.1", "outlier_score=separable"],
        ["method=magnitude", "outlier_fraction=0.1", "outlier_score=separable"],
        ["method=dense", "recovery=full"],
        ["recovery=full", "recovery.steps=9"],
        ["recovery=full", "recovery.distillation=1"],
        ["recovery=lora", "recovery.rank=4"],
        ["recovery=lora", "recovery.weights=all"],
        ["recovery=full", "recovery.context=64"],
        ["recovery=full", "recovery.source=wikitext2"],
        ["recovery=full", "recovery.source=wikitext2", "recovery.path=README.md"],
        ["method=dense", "recovery=full", "seed=1"],
        ["method=magnitude", "layer_errors=false", "recovery=full", "seed=1"],
        ["method=magnitude", "pattern=2:4"],
        ["method=magnitude", "pattern=2:4", "method.channel_permutation=true"],
        ["method=thanos-plus", "pattern=4:8", "method.channel_permutation=false"],
        ["method.reconstruction_steps=9", "method.reconstruction_rate=0.1"],
        ["method.reconstruction_steps=9", "method.reconstruction_precision=bfloat16"],
        ["method.allocation=owl", "method.allocation_unit=layer"],
        ["method=thanos-plus", "pattern=2:4", "method.allocation_mixed=true"],
        ["pattern=4:8", "method.allocation_mixed=true", "method.allocation=owl"],
        ["method=magnitude", "layer_errors=false", "method.allocation=owl", "seed=1"],
        ["method=magnitude", "layer_errors=false", "method.reconstruction_steps=9", "seed=1"],
        ["method=magnitude", "seed=1"],
        ["pattern=0.5", "method.scope=block"],
        ["method=magnitude", "calibration.windows=8"],
        ["method=wanda", "layer_errors=false", "calibration.windows=8"],
        ["method=magnitude", "layer_errors=false", "outlier_fraction=0.1", "calibration.windows=8"],
    ],
)
def test_a_key_that_the_choices_use_makes_another_run(overrides, monkeypatch):
    monkeypatch.chdir(PROJECT)
    config = resolve(overrides)
    refuse_unused(config, overrides)
    without = overrides[:-1]
    if overrides[-1].startswith("evaluation.path"):  # there must be one
        without = [*without, "evaluation.path=LICENSE"]
    assert RunBuilder().run(config).evaluation.id != run_of(*without).evaluation.id


def test_secrets_have_no_place_in_a_configuration():
    text = dumps(resolve([])).lower()
    assert "token:" not in text
    assert "key:" not in text
