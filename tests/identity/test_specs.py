"""What names a thing: what it is of, in whatever way that is spelt."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from thanos.config import RunBuilder, refuse_unused, resolve
from thanos.errors import UserError
from thanos.identity import EvaluationSpec, Place, PruningSpec
from thanos.identity.models import local_model
from thanos.identity.spec import read_spec
from thanos.paths import PROJECT


def ids(*overrides: str) -> tuple[str, ...]:
    run = RunBuilder().run(resolve([*overrides]))
    pruning = run.pruning
    return (pruning.id, pruning.calibration.id, run.evaluation.id, run.evaluation.windows[0].id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["model=hf", "model.path=a/b"], ["model=hf", "model.path=a/b", "model.revision=main"]),
        (["pattern=0.5"], ["pattern=unstructured:0.50"]),
        (["pattern=1e-05"], ["pattern=unstructured:0.00001"]),
        (["method=thanos"], ["method=thanos", "method.block_size=128"]),
        (["method=thanos", "pattern=2:4"], ["method=thanos", "pattern=2:4", "method.metric=wanda"]),
        (["method=wanda"], ["method=magnitude", "method.metric=wanda", "method.scope=row"]),
        ([], ["method.label=mine", "model.name=other", "calibration.name=c", "evaluation.name=e"]),
    ],
)
def test_another_spelling_is_the_same_thing(one, other):
    assert ids(*one) == ids(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["model=hf", "model.path=a/b"], ["model=hf", "model.path=a/c"]),
        (["model=hf", "model.path=a/b"], ["model=hf", "model.path=a/b", "model.revision=v2"]),
        (["pattern=0.5"], ["pattern=0.50001"]),
        (["pattern=0.5"], ["pattern=structured:0.5"]),
        (["method=thanos"], ["method=thanos", "method.block_size=64"]),
        (["seed=0"], ["seed=1"]),
    ],
)
def test_another_thing_has_another_name(one, other):
    assert ids(*one)[0] != ids(*other)[0]


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "merges.txt", "vocab.bpe", "qwen.tiktoken", "own.py"]
)
def test_whatever_may_describe_a_model_is_part_of_it(tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(PROJECT / "thanos" / "testbed" / "models" / "doc-llama", folder)
    before = local_model(str(folder), False)
    with (folder / name).open("a") as file:
        file.write(" ")
    after = local_model(str(folder), False)
    assert (before.weights, before.description == after.description) == (after.weights, False)


@pytest.mark.parametrize("name", ["manifest.json", "README.md", ".gitattributes", "weights.gguf"])
def test_what_neither_weighs_nor_describes_is_none(tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(PROJECT / "thanos" / "testbed" / "models" / "doc-llama", folder)
    before = local_model(str(folder), False)
    (folder / name).write_text("{}")
    assert local_model(str(folder), False) == before


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["method=thanos"], "thanos-unstructured-0.5-e8bc7e451bbb"),
        (
            ["method=sparsegpt", "pattern=2:4", "outlier_fraction=0.1"],
            "sparsegpt-2-4-955cfa4e12b9",
        ),
        (["method=wanda", "pattern=structured:0.3"], "wanda-structured-0.3-5fde76b2da09"),
        (["method=magnitude", "layer_errors=false"], "magnitude-unstructured-0.5-d0be8e8eefb5"),
        (
            ["method=thanos-refined", "pattern=4:8", "method.damping=0.1", "method.block_size=64"],
            "thanos-4-8-516e97a23ca8",
        ),
    ],
)
def test_results_of_before_an_option_keep_their_names(overrides, known):
    """As they were before there was any alternating update, order, correction or given mask."""
    run = RunBuilder().run(resolve(["model=hf", "model.path=a/b", *overrides]))
    assert run.pruning.id == known


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["evaluation=wikitext2"], "wikitext2-cf44244a36e2"),
        (["evaluation=paper", "method=dense"], "dense-819162bd5833"),
        (["evaluation=c4", "evaluation.quantization=int4"], "c4-977d0158673c"),
    ],
)
def test_evaluations_of_before_an_option_keep_their_names(overrides, known):
    """As they were before predictions were compared with the dense model's."""
    run = RunBuilder().run(resolve(["model=hf", "model.path=a/b", *overrides]))
    assert run.evaluation.id == known
    compared = RunBuilder().run(
        resolve(["model=hf", "model.path=a/b", *overrides, "evaluation.divergence=true"])
    )
    same_model = run.pruning is None and run.evaluation.quantization == "none"
    assert (compared.evaluation.id == known) == same_model
    assert set(run.evaluation.parts()) <= set(compared.evaluation.parts())
    read = read_spec(EvaluationSpec, json.dumps(compared.evaluation.to_json()))
    assert read.id == compared.evaluation.id


@pytest.mark.parametrize(
    "overrides",
    [
        ["method.order=sublayer"],
        ["method.allocation=owl"],
        ["method.allocation=owl", "method.allocation_spread=0.1"],
        ["method.allocation=error", "method.allocation_unit=layer"],
        ["method.reconstruction_steps=5"],
        ["method.reconstruction_steps=5", "method.reconstruction_rate=0.1"],
        ["method.reconstruction_steps=5", "method.reconstruction_batch=1"],
        ["method.reconstruction_steps=5", "method.reconstruction_precision=bfloat16"],
        ["method.correction=0.5"],
        ["method.scope=layer", "method.update=alternating"],
        ["method=admm", "method.iterations=21"],
        ["method=admm", "method.penalty=2"],
        ["method=admm", "method.schedule=5"],
    ],
)
def test_a_later_option_that_is_on_is_part_of_the_name(overrides):
    assert ids(*overrides)[0] != ids(*overrides[:-1])[0]


def test_options_of_windows_and_of_a_dense_model_name_what_they_change():
    """Where they are off, names are those of before there were any."""
    model = ["model=hf", "model.path=a/b"]
    before = ids(*model)
    assert before == (
        "thanos-unstructured-0.5-e8bc7e451bbb",
        "docstrings-f7f4c91258c9",
        "thanos-unstructured-0.5-960fb7c853a4",
        "docstrings-5858c3b3667e",
    )
    assert not set(ids(*model, "model.add_bos=true")) & set(before)

    def dense(*overrides):
        return RunBuilder().run(resolve([*model, "method=dense", *overrides])).evaluation

    rounded = dense("evaluation.quantization=int8")
    kept = dense("evaluation.quantization=int8", "model.skip=[down_proj]")
    assert (rounded.skip, kept.skip) == ((), ("down_proj",))
    assert kept.id != rounded.id == "dense-c680729b5de4"
    *parts, size = kept.parts()
    assert {part.skip for part in parts} == {("down_proj",)}
    assert size.skip == ()  # it is as stored
    refused = ["method=dense", "model.skip=[down_proj]"]
    config = resolve([*model, *refused])
    with pytest.raises(UserError, match=r"'model\.skip' is not used by method dense"):
        refuse_unused(config, refused)


def test_a_recovery_changes_what_is_evaluated_and_nothing_before_it():
    plain, trained = ids(), ids("recovery=full")
    assert plain[:2] == trained[:2]
    assert plain[2] != trained[2]
    assert plain[3] == trained[3]
    assert ids("recovery=full") == ids("recovery=full", "recovery.forward_batch=2")
    named = ids("recovery=full", "recovery.name=mine")
    assert named == trained


@pytest.mark.parametrize("overrides", [[], ["recovery=lora"], ["method=dense", "recovery=full"]])
def test_an_evaluation_of_whatever_model_is_read_back(overrides):
    spec = RunBuilder().run(resolve(["evaluation=perplexity", *overrides])).evaluation
    assert read_spec(EvaluationSpec, json.dumps(spec.to_json())) == spec


def test_a_mask_is_what_it_removes_wherever_it_lies(tmp_path):
    """Its content counts; metric and scope, which then choose nothing, do not."""
    for name, value in (("one", 0.0), ("copy", 0.0), ("other", 1.0)):
        folder = tmp_path / name / "checkpoint"
        folder.mkdir(parents=True)
        save_file({"w": torch.full((2, 2), value)}, folder / "model.safetensors")
        (folder / "config.json").write_text("{}")
    one, copy, other = (f"method.mask={tmp_path / name}" for name in ("one", "copy", "other"))
    assert ids(one) == ids(copy) == ids(f"{one}/checkpoint")
    assert ids(one)[0] != ids(other)[0]
    assert ids(one)[0].startswith("joint-masked-unstructured-0.5-")
    wanda = ids("method=wanda", one, "method.update=joint")
    assert wanda[0] == ids(one)[0]
    with pytest.raises(UserError, match=r"method\.mask: .*nowhere holds no pruned model"):
        ids(f"method.mask={tmp_path / 'nowhere'}")


@pytest.mark.parametrize("trained", [False, True])
def test_a_mask_of_channels_that_changed_places_is_refused(tmp_path, trained):
    """Its columns are in an order that the model to prune does not have."""
    overrides = ["pattern=2:4", "method.channel_permutation=true"]
    spec = RunBuilder().run(resolve(overrides)).pruning.to_json()
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    manifest = {"spec": {"model": spec} if trained else spec}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"method\.mask: in .* channels changed places"):
        ids(f"method.mask={tmp_path}", "pattern=2:4")


def test_a_spec_with_every_option_is_read_back(tmp_path):
    folder = tmp_path / "pruned"
    folder.mkdir()
    save_file({"w": torch.zeros(2, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    options = ["method=admm", "method.order=sublayer", "method.correction=0.5"]
    options += ["method.reconstruction_steps=5", "method.allocation=owl"]
    spec = RunBuilder().run(resolve([*options, f"method.mask={folder}"])).pruning
    assert read_spec(PruningSpec, json.dumps(spec.to_json())) == spec


@pytest.mark.parametrize(("context", "windows"), [(256, 16), (1024, 4), (3000, 1), (9000, 1)])
def test_windows_of_a_forward_pass_are_as_many_as_have_4096_tokens(context, windows):
    assert Place().calibration_windows(context) == Place().evaluation_windows(context) == windows
    given = Place(calibration_batch=3, evaluation_batch=5)
    assert (given.calibration_windows(context), given.evaluation_windows(context)) == (3, 5)
