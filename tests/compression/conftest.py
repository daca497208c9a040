"""Small random models of the paper's two families, and wider ones, pruned for real."""

from collections.abc import Callable

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    PreTrainedModel,
    Qwen3Config,
)

from thanos.models import prune_model
from thanos.pruning import prune_weight

VOCABULARY = 64


def llama(hidden: int = 32, layers: int = 2, kv_heads: int = 4) -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    return _random(LlamaForCausalLM(config))


def opt(hidden: int = 32, layers: int = 2) -> PreTrainedModel:
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        ffn_dim=hidden * 4,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    return _random(OPTForCausalLM(config))


_SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GATED = {**_SHARED, "intermediate_size": 48, "num_key_value_heads": 2}
OTHERS = {
    "gpt2": GPT2Config(  # transposed weights, fused attention
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=48,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "phi3": Phi3Config(**_GATED),  # fused gate and up
    "qwen3": Qwen3Config(**_GATED, head_dim=8),  # norms on queries and keys
    "gemma2": Gemma2Config(**_GATED, head_dim=8, sliding_window=4),  # two kinds of block
    "falcon": FalconConfig(**_SHARED, ffn_hidden_size=48),  # attention and mlp side by side
}


@pytest.fixture(params=OTHERS)
def other_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A model of each of some families that are wired differently."""
    return _random(AutoModelForCausalLM.from_config(OTHERS[request.param]))


@pytest.fixture
def others() -> dict[str, Callable[[], PreTrainedModel]]:
    """Functions that build them, by family."""
    return {
        name: lambda config=config: _random(AutoModelForCausalLM.from_config(config))
        for name, config in OTHERS.items()
    }


def _random(model: PreTrainedModel) -> PreTrainedModel:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.1 if parameter.dim() < 2 else parameter.shape[-1] ** -0.5
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def families() -> dict[str, Callable[..., PreTrainedModel]]:
    """Functions that build a model, by family."""
    return {"llama": llama, "opt": opt}


@pytest.fixture
def tokens() -> torch.Tensor:
    """Four windows of sixteen tokens."""
    return torch.randint(VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def prune(tokens: torch.Tensor) -> Callable[..., PreTrainedModel]:
    """Return `prune(model, pattern, alpha=0.0)`, which prunes in place with Thanos."""

    def prune(model: PreTrainedModel, pattern: str, alpha: float = 0.0) -> PreTrainedModel:
        def prune_layer(weight, statistics):
            return prune_weight(weight, statistics, "thanos", pattern, outlier_fraction=alpha)

        prune_model(model, tokens, prune_layer, statistics="gram")
        return model

    return prune
