"""Every model under conf/model that lies on the hub, at the commit that its file pins."""

import re

import pytest
import yaml
from huggingface_hub import HfApi

from thanos.config import RunBuilder, resolve
from thanos.models import load_config, load_tokenizer
from thanos.models.location import is_hub_id, local_folder, weight_files, with_safetensors
from thanos.paths import CONF, model_folder

GIVEN = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in sorted((CONF / "model").glob("*.yaml"))
    if file.stem != "hf"  # any model
}
PUBLISHED = [
    name
    for name, given in GIVEN.items()
    if "gguf" not in given and is_hub_id(given["path"]) and not model_folder(given["path"])
]


def model_of(name):
    return RunBuilder().run(resolve([f"model={name}", "method=dense"])).evaluation.base


def test_every_published_model_is_pinned_to_a_commit():
    assert len(PUBLISHED) >= 18
    models = [model_of(name) for name in PUBLISHED]
    assert all(model.on_hub and re.fullmatch("[0-9a-f]{40}", model.revision) for model in models)
    assert len({model.revision for model in models}) == len(models)


@pytest.mark.hub
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_opens_at_its_commit(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = model_of(name)

    config = load_config(model.path, model.revision)
    tokenizer = load_tokenizer(model.path, model.revision)
    info = HfApi().model_info(model.path, revision=model.revision)

    assert info.sha == model.revision
    assert config.get_text_config().num_hidden_layers > 0
    ids = tokenizer("The quick brown fox jumps over the lazy dog.")["input_ids"]
    assert 5 < len(ids) < 20
    assert max(ids) < config.get_text_config().vocab_size
    files = [file.rfilename for file in info.siblings]
    formats = [f for f in files if re.fullmatch(r"(pytorch_)?model[^/]*\.(safetensors|bin)", f)]
    assert formats, files


@pytest.mark.hub
@pytest.mark.parametrize("name", ["opt-125m", "qwen3-0.6b"])
def test_the_weights_of_a_small_one_are_had(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = model_of(name)
    folder = local_folder(model.path, model.revision, weights=True)
    assert weight_files(with_safetensors(folder, False))
