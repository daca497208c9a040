import errno

import pytest
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from thanos.errors import UserError
from thanos.models import check_copied, copy_checkpoint


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

    copy_checkpoint(source, {}, word_tokenizer, target)
    reloaded = AutoModelForCausalLM.from_pretrained(target)

    assert {parameter.dtype for parameter in reloaded.parameters()} == {dtype}
    assert torch.equal(reloaded.model.layers[0].mlp.up_proj.weight, weight)
    assert AutoTokenizer.from_pretrained(target).get_vocab() == {"<unk>": 0, "a": 1}


def test_tied_embeddings_are_written_once_and_stay_tied(tiny, source, target):
    tiny("llama-tied-biased").save_pretrained(source)

    copy_checkpoint(source, {}, None, target)

    with safe_open(target / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a dict)
    reloaded = AutoModelForCausalLM.from_pretrained(target)
    assert reloaded.lm_head.weight is reloaded.model.embed_tokens.weight


def test_only_plain_files_are_written(tiny, source, target):
    tiny("opt").save_pretrained(source)
    (source / "pytorch_model.bin").touch()

    copy_checkpoint(source, {}, None, target)

    written = {path.name for path in target.iterdir()}
    assert written == {"config.json", "generation_config.json", "model.safetensors"}


@pytest.mark.parametrize("content", ["{", "[]"])
def test_an_unusable_config_is_known_before_there_is_anything_to_write(target, content):
    (target / "config.json").write_text(content)

    with pytest.raises(UserError, match=r"config\.json (is no JSON|holds no JSON object)"):
        check_copied(target)


@pytest.fixture
def failing_copy(tiny, source, target, word_tokenizer, monkeypatch):
    """Return `failing_copy(error)`: a copy that meets an error as it writes the tokenizer."""
    tiny("llama").save_pretrained(source)

    def failing_copy(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(word_tokenizer, "save_pretrained", fail)
        copy_checkpoint(source, {}, word_tokenizer, target)

    return failing_copy


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # what safetensors and tokenizers raise on a full file system
        SafetensorError("I/O error: No space left on device (os error 28)"),
        Exception("No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors", "tokenizers"],
)
def test_full_disk_is_one_clear_line(failing_copy, target, error):
    with pytest.raises(UserError, match=f"^no space left on device while writing {target}$"):
        failing_copy(error)


def test_other_errors_pass_through(failing_copy):
    with pytest.raises(PermissionError):
        failing_copy(OSError(errno.EACCES, "Permission denied"))
