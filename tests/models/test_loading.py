import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from thanos.errors import UserError
from thanos.models import load_config, load_model, load_tokenizer
from thanos.models.description import reason_of

UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tiny, tmp_path):
    """A tiny LLaMA in bfloat16, without a tokenizer."""
    tiny("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    return tmp_path


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_model_opens_in_evaluation_mode_with_its_own_dtype(tiny, folder):
    model = load_model(folder)

    assert not model.training
    assert model.device.type == "cpu"
    assert torch.equal(model.get_parameter(UP), tiny("llama").get_parameter(UP).bfloat16())


def test_dtype_can_be_chosen(folder):
    opened = load_model(folder, dtype=torch.float32)

    assert {p.dtype for p in opened.parameters()} == {torch.float32}


def test_every_family_opens_again(any_model, windows, tmp_path):
    any_model.save_pretrained(tmp_path)

    model = load_model(tmp_path)

    assert torch.equal(model(input_ids=windows).logits, any_model(input_ids=windows).logits)


def test_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()

    with pytest.raises(UserError, match="holds no weights"):
        load_model(folder)


def test_truncated_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(UserError, match=r"model\.safetensors is damaged or incomplete"):
        load_model(folder)


def test_missing_weight_is_an_error_not_a_random_one(folder):
    change_weights(folder, lambda weights: weights.pop(UP))

    with pytest.raises(UserError, match=f"lacks weights of its model: {UP}"):
        load_model(folder)


def test_many_missing_weights_make_one_short_line(folder):
    change_weights(folder, lambda weights: [weights.pop(n) for n in list(weights) if "mlp" in n])

    with pytest.raises(UserError, match="and 6 more; copy or download") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weight_of_another_shape(folder):
    change_weights(folder, lambda weights: weights.update({UP: torch.zeros(3, 5)}))

    with pytest.raises(UserError, match=rf"{UP} .*shape \(3, 5\), but .* \(48, 32\)"):
        load_model(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_weight_is_named(folder, value):
    change_weights(folder, lambda weights: weights[UP].__setitem__((0, 0), value))

    with pytest.raises(UserError, match=f"weight {UP} in .* holds NaN or infinite"):
        load_model(folder)


def test_unused_weights_are_logged(folder, caplog):
    change_weights(folder, lambda weights: weights.update(extra=torch.zeros(1)))

    with caplog.at_level(logging.WARNING, logger="thanos"):
        load_model(folder)

    assert "weights its model does not use: extra" in caplog.text


@pytest.mark.parametrize("text", ['{"model_type": ', '{"hidden_size": 3}', '{"model_type": "new"}'])
def test_unusable_config(folder, text):
    (folder / "config.json").write_text(text)

    for load in (load_config, load_model):
        with pytest.raises(UserError, match=r"config\.json is unusable: ") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_config_of_a_model_that_is_no_language_model(folder):
    change_config(folder, model_type="vit")

    with pytest.raises(UserError, match=r"cannot be opened: Unrecognized configuration class"):
        load_model(folder)


def test_remote_code_runs_only_on_request(folder):
    (folder / "own.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass OwnConfig(LlamaConfig):\n    own = True\n"
    )
    change_config(folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig"})

    with pytest.raises(UserError, match="its own Python code; set trust_remote_code to run it"):
        load_config(folder)
    assert load_config(folder, trust_remote_code=True).own


def test_config(folder):
    assert load_config(folder).hidden_size == 32


def test_tokenizer(folder):
    with pytest.raises(UserError, match=r"holds no tokenizer \(none of tokenizer\.json"):
        load_tokenizer(folder)

    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(UserError, match=r"tokenizer in .* is unusable: "):
        load_tokenizer(folder)

    Tokenizer(WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")).save(
        str(folder / "tokenizer.json")
    )
    assert load_tokenizer(folder).get_vocab() == {"<unk>": 0, "a": 1}


@pytest.mark.parametrize(
    "name", ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm"]
)
def test_a_sentencepiece_tokenizer_names_the_package_that_reads_it(folder, monkeypatch, name):
    monkeypatch.setattr("thanos.models.description.find_spec", lambda _: None)
    (folder / name).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    said = rf"is a SentencePiece model \({name}\), .*: pip install sentencepiece protobuf, or"
    with pytest.raises(UserError, match=said):
        load_tokenizer(folder)

    (folder / name).write_text("IQ== 0\nIg== 1\n")  # tiktoken's form
    with pytest.raises(UserError) as other:
        load_tokenizer(folder)
    assert "SentencePiece" not in str(other.value)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("one\ntwo", "one"),
        ("made of one of: \n(1) this\n(2) that", "made of one of: (1) this"),
        ("run `pip\ninstall x` first\nthen", "run `pip install x` first"),
        ("", "ValueError"),
    ],
)
def test_the_first_sentence_of_a_librarys_message(message, reason):
    assert reason_of(ValueError(message)) == reason


def test_an_unusable_generation_config_is_named(any_model, tmp_path):
    from thanos.models.loading import adopt_generation_config

    adopt_generation_config(tmp_path, any_model)  # none is no fault
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    adopt_generation_config(tmp_path, any_model)
    assert any_model.generation_config.eos_token_id == [7, 9]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7,}')
    with pytest.raises(UserError, match=r"generation_config\.json is unusable"):
        adopt_generation_config(tmp_path, any_model)
