"""Tiny models with random weights, one for every decoder family."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SiglipVisionConfig,
    StableLmConfig,
)

VOCABULARY = 64
_SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GATED = {**_SHARED, "intermediate_size": 48, "num_key_value_heads": 2}
_SLIDING = {**_GATED, "head_dim": 8, "sliding_window": 4}
_ATTENTIONS = ["sliding_attention", "sliding_attention", "full_attention"]
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_OPT = {**_SHARED, "ffn_dim": 48, "word_embed_proj_dim": 32}
_OPT_350M = {**_OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}
_FALCON = {**_SHARED, "ffn_hidden_size": 48}

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "opt": lambda: OPTConfig(**_OPT),
    "opt-350m": lambda: OPTConfig(**_OPT_350M),
    "llama": lambda: LlamaConfig(**_GATED),
    "llama-tied-biased": lambda: LlamaConfig(
        **_GATED, tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama-3": lambda: LlamaConfig(**_GATED, rope_parameters=_LLAMA_3),
    "mistral": lambda: MistralConfig(**_GATED, sliding_window=4),
    "qwen2": lambda: Qwen2Config(
        **_GATED, use_sliding_window=True, sliding_window=4, layer_types=_ATTENTIONS
    ),
    "qwen3": lambda: Qwen3Config(**_GATED, head_dim=8),
    "gemma2": lambda: Gemma2Config(**_SLIDING, layer_types=_ATTENTIONS),
    "gemma3": lambda: Gemma3TextConfig(**_SLIDING, layer_types=_ATTENTIONS),
    "gemma3-vision": lambda: Gemma3Config(
        text_config=Gemma3TextConfig(**_SLIDING, layer_types=_ATTENTIONS),
        vision_config=SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=8,
            patch_size=4,
        ),
        mm_tokens_per_image=4,
        image_token_index=63,
        boi_token_index=62,
        eoi_token_index=61,
    ),
    "phi": lambda: PhiConfig(**_GATED, partial_rotary_factor=0.5),
    "phi3": lambda: Phi3Config(**_GATED),
    "gpt-neox": lambda: GPTNeoXConfig(**_SHARED, intermediate_size=48),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64, n_inner=48
    ),
    "falcon-7b": lambda: FalconConfig(**_FALCON),
    "falcon-40b": lambda: FalconConfig(**_FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon-alibi": lambda: FalconConfig(
        **_FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True
    ),
    "mixtral": lambda: MixtralConfig(**_GATED, num_local_experts=3),
    "qwen3-moe": lambda: Qwen3MoeConfig(
        **_GATED, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
    "stablelm": lambda: StableLmConfig(**_GATED, use_qkv_bias=True, qk_layernorm=True),
}


def build_tiny(config: PreTrainedConfig, attention: str | None = None) -> PreTrainedModel:
    """Return a model of that configuration with weights large enough to matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """Return `tiny(family, attention=None)`, which builds a tiny model."""
    return lambda family, attention=None: build_tiny(FAMILIES[family](), attention)


@pytest.fixture
def custom() -> Callable[[PreTrainedConfig], PreTrainedModel]:
    """Return `custom(config)`, which builds a model of any configuration."""
    return build_tiny


MIXTURES = ("mixtral", "qwen3-moe")


@pytest.fixture(params=[family for family in FAMILIES if family not in MIXTURES])
def any_dense_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """One tiny model per family, all of whose layers see every token."""
    return build_tiny(FAMILIES[request.param]())


@pytest.fixture(params=MIXTURES)
def any_mixture(request: pytest.FixtureRequest) -> PreTrainedModel:
    """One tiny mixture of experts per family."""
    return build_tiny(FAMILIES[request.param]())


@pytest.fixture(params=FAMILIES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """One tiny model per family."""
    return build_tiny(FAMILIES[request.param]())


@pytest.fixture
def windows() -> torch.Tensor:
    """Five windows of ten tokens: three batches of two, the last one smaller."""
    return torch.randint(0, 60, (5, 10), generator=torch.Generator().manual_seed(1))
