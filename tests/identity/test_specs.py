"""What names a thing: what it is of, in whatever way that is spelt."""

import shutil

import pytest

from thanos.config import RunBuilder, resolve
from thanos.identity.models import local_model
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
