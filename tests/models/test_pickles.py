"""Pickled weights become the safetensors that transformers would have written, or are refused."""

import json
import logging
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, OPTConfig

from thanos.content import file_hash
from thanos.errors import UserError
from thanos.models import FinishedBlocks, StreamedBlocks, load_model, prune_model
from thanos.models.location import cached_folder, listed_weight_files, with_safetensors
from thanos.models.pickles import converted_from, pickle_files
from thanos.models.unpickling import convert
from thanos.pruning import prune_weight

BASE = "model."  # the prefix that some of OPT's files leave out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THANOS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pickled").mkdir()
    return tmp_path / "pickled"


def pickled(model, folder, rename=lambda name: name, leave_out=(), shards=1):
    """Save a model as `pytorch_model.bin` files, with one name for every tensor that it has."""
    model.config.save_pretrained(folder)
    state = {rename(n): t for n, t in model.state_dict().items() if n not in leave_out}
    names = list(state)
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    files = [f"pytorch_model-{n + 1:05d}-of-{shards:05d}.bin" for n in range(shards)]
    for n, file in enumerate(files):
        torch.save({name: state[name] for name in names[n::shards]}, folder / file)
    index = {name: files[n % shards] for n, name in enumerate(names)}
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "pytorch_model.bin.index.json").write_text(text)
    return folder


def request(folder, target, names=(), prefix="model", tied=None):
    files = {str(file): str(target / f"{file.stem}.safetensors") for file in pickle_files(folder)}
    return {"files": files, "names": list(names), "prefix": prefix, "tied": tied or {}}


@pytest.mark.parametrize("family", ["opt", "opt-350m", "llama", "llama-tied-biased", "qwen3"])
def test_the_file_is_byte_for_byte_what_transformers_writes(tiny, family, folder, tmp_path):
    model = tiny(family)
    model.half().save_pretrained(tmp_path / "expected")
    pickled(model, folder)
    tied = dict(model.all_tied_weights_keys)

    convert(request(folder, tmp_path, model.state_dict(), tied=tied))

    made = (tmp_path / "pytorch_model.safetensors").read_bytes()
    assert made == (tmp_path / "expected" / "model.safetensors").read_bytes()


def pruned_weights(folder, windows, work):
    finished = FinishedBlocks(work, {"run": 1})
    prune_model(
        StreamedBlocks(folder, finished=finished),
        windows,
        lambda weight, inputs: prune_weight(weight, inputs, method="thanos", pattern="2:4"),
        statistics="gram",
    )
    return [file_hash(file) for file in sorted(work.glob("block-*.safetensors"))]


@pytest.mark.parametrize(
    ("rename", "leave_out", "shards"),
    [
        (lambda name: name, (), 1),
        (lambda name: name.removeprefix(BASE), ("lm_head.weight",), 1),
        (lambda name: name.removeprefix(BASE) if "layers.1" in name else name, (), 3),
    ],
)
def test_pruned_from_pickles_as_from_safetensors(
    tiny, windows, folder, tmp_path, caplog, rename, leave_out, shards
):
    model = tiny("opt")
    model.save_pretrained(tmp_path / "safetensors")
    pickled(model, folder, rename, leave_out, shards)
    beside = ("vocab.json", "LICENSE", "additional_chat_templates/tool.jinja")
    (folder / "additional_chat_templates").mkdir()
    for name in beside:
        (folder / name).write_text("{}")
    hashes = {file.name: file_hash(file) for file in pickle_files(folder)}
    folder.chmod(0o555)

    with caplog.at_level(logging.INFO):
        made = with_safetensors(folder, False)

    assert "holds pickled weights (pytorch_model" in caplog.text
    assert "converting them to safetensors, once" in caplog.text
    expected = pruned_weights(tmp_path / "safetensors", windows, tmp_path / "a")
    assert pruned_weights(made, windows, tmp_path / "b") == expected
    assert all((made / name).read_text() == "{}" for name in beside)
    load_model(made)  # transformers misses nothing
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["converted_from"]["files"] == hashes
    assert all(manifest["files"][file.name]["sha256"] for file in listed_weight_files(made))
    # Once: the next who asks, and the memory plan, have it at no cost.
    caplog.clear()
    assert with_safetensors(folder, False) == made == cached_folder(folder)
    assert not caplog.text


class Command:
    """What a pickle can do when it is opened."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("how", ["new", "old", "bare"])
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(
    tiny, folder, tmp_path, cache, how, monkeypatch
):
    model = tiny("opt")
    pickled(model, folder)
    content = {**model.state_dict(), "trick": Command(tmp_path / "was here")}
    file = folder / "pytorch_model.bin"
    if how == "bare":
        file.write_bytes(pickle.dumps({"trick": Command(tmp_path / "was here")}, 2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "new")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    with pytest.raises(UserError) as caught:
        with_safetensors(folder, False) if how == "new" else convert(request(folder, tmp_path))

    assert str(caught.value).startswith(f"weight file {file} asks for posix.mkdir when it is")
    assert "nothing of it was run" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "was here").exists()
    assert not list(cache.glob("converted/*"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(2)], "it is no table of tensors by name"),
        ({}, "it is no table of tensors by name"),
        ({"model": {"w": torch.ones(2)}}, "'model' is a dict, not a named tensor"),
        ({"w": torch.ones(2), "step": 3}, "'step' is a int, not a named tensor"),
        ({1: torch.ones(2)}, "1 is a Tensor, not a named tensor"),
        ({"__metadata__": torch.ones(2)}, "'__metadata__' is a Tensor, not a named tensor"),
        ({"a\nb": torch.ones(2)}, r"'a\\nb' is a Tensor, not a named tensor"),
        ({"w": torch.ones(1).expand(10**12)}, "'w' is larger than what is stored of it"),
        ({str(n): torch.ones(9).expand(1, 9) for n in range(3)}, None),
        ({"w": torch.ones(2, 2).to_sparse()}, "'w' is a tensor of another kind"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "'w' is a tensor of another kind"),
    ],
)
def test_what_is_no_table_of_tensors(folder, tmp_path, content, reason):
    torch.save(content, folder / "pytorch_model.bin")
    if reason is None:
        convert(request(folder, tmp_path))
        return
    with pytest.raises(UserError, match=rf"cannot be converted to safetensors \({reason}"):
        convert(request(folder, tmp_path))
    assert not list(tmp_path.glob("*.safetensors"))


def test_many_names_for_the_same_bytes_do_not_fill_the_disk(folder, tmp_path):
    weight = torch.ones(100_000)
    torch.save({f"w{n}": weight for n in range(50)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="its tensors are larger than the file"):
        convert(request(folder, tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_pickle_is_named(tiny, folder, tmp_path, share):
    pickled(tiny("opt"), folder)
    file = folder / "pytorch_model.bin"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"pytorch_model\.bin cannot be converted") as caught:
        convert(request(folder, tmp_path))
    assert "\n" not in str(caught.value)


def test_views_and_old_files_are_read_too(folder, tmp_path):
    matrix = torch.arange(6.0).reshape(2, 3)
    content = {"t": matrix.T, "part": matrix[1], "scalar": torch.tensor(7)}
    for legacy in (False, True):
        torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        convert(request(folder, tmp_path))
        found = load_file(tmp_path / "pytorch_model.safetensors")
        assert found.keys() == content.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in content.items())


def test_shards_without_an_index_are_refused_by_name(folder):
    for n in (1, 2):
        torch.save({"w": torch.ones(2)}, folder / f"pytorch_model-{n}.bin")
    with pytest.raises(UserError, match=r"2 files such as pytorch_model-1\.bin but no pytorch_mod"):
        listed_weight_files(folder)


def test_a_shard_that_the_index_names_is_missing(tiny, folder):
    pickled(tiny("opt"), folder, shards=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UserError, match=r"00002-of-00002\.bin is missing; copy or download"):
        with_safetensors(folder, False)


def test_safetensors_go_before_pickles(tiny, folder):
    model = tiny("opt")
    pickled(model, folder)
    model.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    assert with_safetensors(folder, False) == folder
    assert [file.name for file in listed_weight_files(folder)] == ["model.safetensors"]


def test_a_cache_that_cannot_be_written(tiny, folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("THANOS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match=r"cannot be written .* set THANOS_CACHE to a folder"):
        with_safetensors(pickled(tiny("opt"), folder), False)


def test_a_damaged_conversion_is_noticed(tiny, folder):
    made = with_safetensors(pickled(tiny("opt"), folder), False)
    file = made / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged.*delete .* and run"):
        with_safetensors(folder, False)
    assert converted_from(folder) == {}


def test_of_two_who_want_it_one_makes_it(tiny, folder, cache, caplog):
    pickled(tiny("opt"), folder)
    with caplog.at_level(logging.INFO), ThreadPoolExecutor() as pool:
        made = set(pool.map(lambda _: with_safetensors(folder, False), range(2)))
    assert len(made) == 1
    assert caplog.text.count("converting them to safetensors, once") == 1
    assert "another process is working in" in caplog.text
    assert list((cache / "converted").iterdir()) == [*made]


@pytest.mark.slow
def test_the_process_that_converts_holds_a_chunk_not_a_shard(folder, tmp_path):
    config = OPTConfig(
        hidden_size=1024,
        word_embed_proj_dim=1024,
        ffn_dim=4096,
        num_attention_heads=16,
        num_hidden_layers=8,
        vocab_size=60_000,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    pickled(model, folder)
    size = (folder / "pytorch_model.bin").stat().st_size
    assert size > 600 * 2**20
    asked = json.dumps(request(folder, tmp_path, tied=dict(model.all_tied_weights_keys)))
    code = (
        "from thanos.models.unpickling import main; main(); import sys; from pathlib import Path;"
        "print([l for l in Path('/proc/self/status').read_text().splitlines() if 'HWM' in l][0],"
        "file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True
    )
    peak = int(done.stderr.split()[-2]) * 1024
    assert peak < 320 * 2**20, peak
    assert not Path(tmp_path / "cache").exists()
