"""Safetensors of a GGUF file, against its bits read by their definition."""

import pytest
import torch
from gguf_file import BLOCKS, CONTEXT, HIDDEN, write_gguf
from safetensors.torch import load_file
from transformers import AutoTokenizer

from thanos.errors import UserError
from thanos.models import load_model
from thanos.models.gguf import dequantize


def test_the_weights_are_those_of_the_file(tmp_path):
    expected = write_gguf(tmp_path / "tiny.gguf")
    folder = tmp_path / "model"
    said = dequantize(tmp_path / "tiny.gguf", folder)
    assert said["license"] == "apache-2.0"
    assert said["tensors"] == {"F32": 1 + 2 * BLOCKS, "Q4_1": 1 + 7 * BLOCKS}
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].dtype == torch.bfloat16
        assert torch.equal(found[name], weight), name
    model = load_model(folder)
    assert model.config.hidden_size == HIDDEN
    assert model.config.max_position_embeddings == CONTEXT
    assert not hasattr(model.config, "quantization_config")  # it is no quantised model any more
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("cab é")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["c", "ab", "Ġ", "Ã", "©"]


@pytest.mark.parametrize("damage", [lambda whole: b"no GGUF" * 99, lambda whole: whole[:5000]])
def test_what_is_no_model_is_said_in_one_line(tmp_path, damage):
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"tiny\.gguf cannot be read as a GGUF model: ") as caught:
        dequantize(file, tmp_path / "model")
    assert "\n" not in str(caught.value)
