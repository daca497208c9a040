import errno
import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Olmo3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)
from whole_logits import whole_logits

from thanos.errors import UserError
from thanos.models import StreamedBlocks, check_copied, copy_checkpoint
from thanos.models.location import weight_files
from thanos.models.safetensors_layout import read_layout
from thanos.models.shards import stored_tensors


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def word_tokenizer():
    words = Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_dtype_and_zeros_are_kept(tiny, source, target, word_tokenizer, dtype):
    model = tiny("llama").to(dtype)
    weight = model.model.layers[0].mlp.up_proj.weight
    weight[::2] = 0
    model.save_pretrained(source)
    word_tokenizer.save_pretrained(source)

    copy_checkpoint(source, {}, target)
    reloaded = AutoModelForCausalLM.from_pretrained(target)

    assert {parameter.dtype for parameter in reloaded.parameters()} == {dtype}
    assert torch.equal(reloaded.model.layers[0].mlp.up_proj.weight, weight)
    assert AutoTokenizer.from_pretrained(target).get_vocab() == {"<unk>": 0, "a": 1}


def test_tied_embeddings_are_written_once_and_stay_tied(tiny, source, target):
    tiny("llama-tied-biased").save_pretrained(source)

    copy_checkpoint(source, {}, target)

    with safe_open(target / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a dict)
    reloaded = AutoModelForCausalLM.from_pretrained(target)
    assert reloaded.lm_head.weight is reloaded.model.embed_tokens.weight


def test_only_plain_files_are_written(tiny, source, target):
    tiny("opt").save_pretrained(source)
    (source / "pytorch_model.bin").touch()

    copy_checkpoint(source, {}, target)

    written = {path.name for path in target.iterdir()}
    assert written == {"config.json", "generation_config.json", "model.safetensors"}


CARRIED = {
    "tokenizer.json": b'{"a" :1 }',
    "tokenizer_config.json": b'{"tokenizer_class":"GPT2Tokenizer"}\r\n',
    "special_tokens_map.json": b"{}",
    "vocab.json": b'{"\xc4\xa0a": 0}',
    "merges.txt": b"#version: 0.2\n",
    "preprocessor_config.json": b"{}",
    "processor_config.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "additional_chat_templates/tools.jinja": b"{{ tools }}",
    "qwen.tiktoken": b"IQ== 0\n",
    "tokenizer.model": b"\x00\xff",
    "configuration_own.py": b"x = 1\n",
    "LICENSE": b"Apache",
    "LICENCE.txt": b"Apache",
    "NOTICE.md": b"notice",
    "USE_POLICY.md": b"policy",
    "generation_config.json": b'{"top_p":0.9}',
}


def test_all_that_stands_beside_the_weights_is_carried_over_byte_for_byte(tiny, source, target):
    tiny("llama").save_pretrained(source)
    for name, content in CARRIED.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    for name in ("manifest.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"):
        (source / name).write_text("{}")

    check_copied(source)
    copy_checkpoint(source, {}, target)

    written = {f.relative_to(target).as_posix() for f in target.rglob("*") if f.is_file()}
    assert written == {*CARRIED, "config.json", "model.safetensors"}
    for name in (*CARRIED, "model.safetensors"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", '{"top_p": 0.9,}', '{"a": 1} x'])
def test_an_unusable_file_is_known_before_there_is_anything_to_write(target, name, content):
    (target / name).write_text(content)

    with pytest.raises(UserError, match=f"{name} is no JSON"):
        check_copied(target)


def test_a_configuration_that_is_no_object(target):
    (target / "config.json").write_text("[]")

    with pytest.raises(UserError, match=r"config\.json holds no JSON object"):
        check_copied(target)


SPARSE = {"quant_method": "compressed-tensors", "sparsity_config": {"format": "dense"}}


def test_a_model_that_only_says_that_it_is_sparse_is_pruned(tiny, source, target, windows):
    model = tiny("llama")
    model.save_pretrained(source)
    values = json.loads((source / "config.json").read_text())
    told = {**values, "quantization_config": SPARSE, "sparsity_config": {}}
    (source / "config.json").write_text(json.dumps(told))

    logits = whole_logits(StreamedBlocks(source), windows, 5)
    copy_checkpoint(source, {}, target)

    assert torch.equal(logits, model(windows).logits)
    expected = {**values, "rope_theta": values["rope_parameters"]["rope_theta"]}
    assert json.loads((target / "config.json").read_text()) == expected


LINEAR = {"rope_type": "linear", "factor": 2.0}
BASE = {"rope_type": "default", "rope_theta": 5e5}
TWO_WAYS = {"full_attention": {**LINEAR, "rope_theta": 1e6}, "sliding_attention": BASE}


@pytest.mark.parametrize(
    ("kind", "rotary", "added"),
    [
        ("llama", BASE, {"rope_theta": 5e5}),
        ("llama", {**LINEAR, "rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": LINEAR}),
        (
            "phi",
            {**BASE, "partial_rotary_factor": 0.5},
            {"rope_theta": 5e5, "partial_rotary_factor": 0.5},
        ),
        (
            "gpt_neox",
            {**BASE, "partial_rotary_factor": 0.5},
            {"rotary_emb_base": 5e5, "rotary_pct": 0.5},
        ),
        (
            "gemma3_text",
            TWO_WAYS,
            {"rope_theta": 1e6, "rope_local_base_freq": 5e5, "rope_scaling": LINEAR},
        ),
        ("gemma3_text", {"full_attention": 3}, {}),
        ("another", TWO_WAYS, {}),
        ("llama", None, {}),
    ],
)
@pytest.mark.parametrize("part", [None, "text_config"])
def test_rotary_positions_are_said_in_the_words_of_older_readers(
    tiny, source, target, kind, rotary, added, part
):
    tiny("llama").save_pretrained(source)
    own = {"model_type": kind, "rope_parameters": rotary}
    values = own if part is None else {"model_type": "x", part: own}
    (source / "config.json").write_text(json.dumps(values))

    copy_checkpoint(source, {}, target)

    written = json.loads((target / "config.json").read_text())
    written = written if part is None else written[part]
    assert written == {**own, **added}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(rope_parameters={**LINEAR, "rope_theta": 5e5}),
        PhiConfig(rope_parameters={**LINEAR, "rope_theta": 5e3, "partial_rotary_factor": 0.25}),
        GPTNeoXConfig(rope_parameters={**LINEAR, "rope_theta": 5e3, "partial_rotary_factor": 0.5}),
        Gemma3TextConfig(rope_parameters=TWO_WAYS),
        Olmo3Config(rope_parameters=TWO_WAYS),
        Qwen3MoeConfig(rope_parameters=BASE),
    ],
    ids=lambda config: config.model_type,
)
def test_todays_reader_takes_both_for_the_same(tiny, source, target, config):
    tiny("llama").save_pretrained(source)
    config.save_pretrained(source)

    copy_checkpoint(source, {}, target)

    opened = AutoConfig.from_pretrained(target)
    assert opened.rope_parameters == AutoConfig.from_pretrained(source).rope_parameters


def test_a_configuration_in_older_words_is_copied_byte_for_byte(tiny, source, target):
    tiny("llama").save_pretrained(source)
    told = '{"rope_theta":5e5,\n "rope_parameters": {"rope_theta": 500000.0}, "model_type": "x"}'
    (source / "config.json").write_text(told)

    copy_checkpoint(source, {}, target)

    assert (target / "config.json").read_text() == told


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.int32])
def test_a_model_that_says_so_and_is_quantised_is_refused(tiny, source, dtype):
    tiny("llama").save_pretrained(source)
    weights = load_file(source / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({**weights, name: weights[name].to(dtype)}, source / "model.safetensors")
    values = json.loads((source / "config.json").read_text())
    told = {**values, "quantization_config": {"quant_method": "other"}}
    (source / "config.json").write_text(json.dumps(told))

    with pytest.raises(UserError, match=rf"quantised weights \({name} is "):
        StreamedBlocks(source)


@pytest.fixture
def shards(tiny, source):
    """A model in three shards or so, with its index."""
    tiny("llama").save_pretrained(source, max_shard_size="40KB")
    assert len(list(source.glob("model-*.safetensors"))) > 2
    return source


def test_the_index_decides_where_two_shards_hold_a_tensor(shards, target, windows, tiny):
    expected = tiny("llama")(windows).logits
    last = max(shards.glob("model-*.safetensors"))
    name = "model.layers.0.self_attn.q_proj.weight"
    stale = {**load_file(last), name: torch.full((32, 32), 7.0)}
    save_file(stale, last, metadata={"format": "pt"})

    assert torch.equal(whole_logits(StreamedBlocks(shards), windows, 5), expected)

    zeros = {name: torch.zeros(32, 32)}
    save_file(zeros, shards.parent / "pruned")
    copy_checkpoint(shards, read_layout(shards.parent / "pruned"), target)
    assert stored_tensors(weight_files(target))[name].file != target / last.name
    assert torch.equal(load_file(target / last.name)[name], stale[name])
    own = target / stored_tensors(weight_files(target))[name].file.name
    assert not load_file(own)[name].any()

    (shards / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=f"both hold '{name}'"):
        StreamedBlocks(shards)


def test_shards_without_an_index_are_read_and_get_one(shards, target, windows, tiny):
    expected = json.loads((shards / "model.safetensors.index.json").read_text())
    (shards / "model.safetensors.index.json").unlink()

    assert torch.equal(
        whole_logits(StreamedBlocks(shards), windows, 5), tiny("llama")(windows).logits
    )
    copy_checkpoint(shards, {}, target)
    written = json.loads((target / "model.safetensors.index.json").read_text())
    assert written["weight_map"] == expected["weight_map"]
    opened = AutoModelForCausalLM.from_pretrained(target)
    assert torch.equal(opened(windows).logits, tiny("llama")(windows).logits)

    min(shards.glob("model-*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors\.index\.json, and of the sh"):
        StreamedBlocks(shards)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.norm.weight": "first"}, "but it is in"),
        ({"no.such.weight": "first"}, "which no file holds"),
    ],
)
def test_an_index_that_is_wrong(shards, change, message):
    index = shards / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    first = min(values["weight_map"].values())
    values["weight_map"] |= dict.fromkeys(change, first)
    index.write_text(json.dumps(values))

    with pytest.raises(UserError, match=message):
        StreamedBlocks(shards)


@pytest.fixture
def failing_copy(tiny, source, target, monkeypatch):
    """Return `failing_copy(error)`: a copy that meets an error as it writes a small file."""
    tiny("llama").save_pretrained(source)

    def failing_copy(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr("thanos.models.checkpoint.shutil.copyfile", fail)
        copy_checkpoint(source, {}, target)

    return failing_copy


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # what safetensors raises on a full file system
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors"],
)
def test_full_disk_is_one_clear_line(failing_copy, target, error):
    with pytest.raises(UserError, match=f"^no space left on device while writing {target}$"):
        failing_copy(error)


def test_other_errors_pass_through(failing_copy):
    with pytest.raises(PermissionError):
        failing_copy(OSError(errno.EACCES, "Permission denied"))
