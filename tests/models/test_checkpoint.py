import errno
import json

import pytest
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from thanos.errors import UserError
from thanos.models import save_checkpoint


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_dtype_and_zeros_are_kept(tiny, tmp_path, dtype):
    model = tiny("llama").to(dtype)
    weight = model.model.layers[0].mlp.up_proj.weight
    weight[::2] = 0

    save_checkpoint(model, word_tokenizer(), tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)

    assert {parameter.dtype for parameter in reloaded.parameters()} == {dtype}
    assert torch.equal(reloaded.model.layers[0].mlp.up_proj.weight, weight)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == {"<unk>": 0, "a": 1}


def test_tied_embeddings_are_written_once_and_stay_tied(tiny, tmp_path):
    save_checkpoint(tiny("llama-tied-biased"), None, tmp_path)

    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 (not a dict)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert reloaded.lm_head.weight is reloaded.model.embed_tokens.weight


def test_config_has_no_sparsity_config(tiny, tmp_path):
    model = tiny("llama")
    model.config.sparsity_config = {"format": "dense"}

    save_checkpoint(model, None, tmp_path)

    assert "sparsity_config" not in json.loads((tmp_path / "config.json").read_text())


def test_only_plain_files_are_written(tiny, tmp_path):
    save_checkpoint(tiny("opt"), None, tmp_path)

    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"config.json", "generation_config.json", "model.safetensors"}


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
def test_full_disk_is_one_clear_line(tiny, tmp_path, monkeypatch, error):
    model = tiny("llama")

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(model, "save_pretrained", fail)

    with pytest.raises(UserError, match=f"^no space left on device while writing {tmp_path}$"):
        save_checkpoint(model, None, tmp_path)


def test_other_errors_pass_through(tiny, tmp_path, monkeypatch):
    model = tiny("llama")

    def fail(*args, **kwargs):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(model, "save_pretrained", fail)

    with pytest.raises(PermissionError):
        save_checkpoint(model, None, tmp_path)
