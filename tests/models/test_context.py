import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DbrxConfig,
    GPT2Config,
    LlamaConfig,
    MptConfig,
    MusicgenConfig,
    OPTConfig,
    RobertaConfig,
    T5Config,
    WhisperConfig,
    XLMRobertaConfig,
    XLNetConfig,
)
from transformers.models.musicgen import MusicgenDecoderConfig

from thanos.models.context import longest_window, text_part

MUSIC = {"decoder": MusicgenDecoderConfig(max_position_embeddings=30).to_dict()}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(max_position_embeddings=40), 40),
        (OPTConfig(max_position_embeddings=40), 40),
        (GPT2Config(n_positions=40), 40),
        (MptConfig(max_seq_len=40), 40),
        (DbrxConfig(max_seq_len=40), 40),
        (WhisperConfig(max_target_positions=40, max_source_positions=90), 40),
        (RobertaConfig(max_position_embeddings=40, pad_token_id=1), 38),
        (XLMRobertaConfig(max_position_embeddings=40, pad_token_id=3), 36),
        (XLNetConfig(), None),
        (T5Config(), None),
        (
            MusicgenConfig(
                text_encoder=T5Config().to_dict() | {"model_type": "t5"},
                audio_encoder={"model_type": "encodec"},
                **MUSIC,
            ),
            30,
        ),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_a_configuration_says_how_long_a_window_may_be(config, expected):
    assert longest_window(config.get_text_config(decoder=True)) == expected
    assert longest_window(text_part(config.to_dict())) == expected


@pytest.mark.parametrize("none", [None, -1, 0, 1e30, float("inf"), "none", True, [64]])
def test_what_is_no_limit(none):
    assert longest_window({"max_position_embeddings": none}) is None
    assert longest_window({"max_position_embeddings": none, "n_positions": 8}) == 8


def test_a_model_counting_from_behind_its_padding_runs_at_its_limit():
    config = RobertaConfig(
        vocab_size=32,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
        is_decoder=True,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    limit = longest_window(config)

    assert model(torch.full((1, limit), 5)).logits.shape == (1, limit, 32)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, limit + 1), 5))
