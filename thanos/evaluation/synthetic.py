"""Random decoders of the paper's two families in any width: only their shapes matter for speed."""

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
)

FAMILIES = ("llama", "opt")
_VOCABULARY = 512
_HEAD = 64  # channels of an attention head


def random_model(family: str, hidden: int, layers: int, context: int) -> PreTrainedModel:
    """A decoder in float32 and evaluation mode, with the family's ratio of widths; always the same.

    Args:
        family: one of `FAMILIES`; `llama` with 4096 has the layers of LLaMA-7B.
        hidden: width of the hidden states, a multiple of 64.
        layers: number of decoder blocks.
        context: longest window in tokens.
    """
    shared: dict[str, Any] = {
        "vocab_size": _VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // _HEAD,
        "max_position_embeddings": context,
    }
    config: PretrainedConfig
    if family == "llama":
        inner = -(-8 * hidden // (3 * 256)) * 256  # two thirds of 4 x hidden, rounded up
        config = LlamaConfig(**shared, intermediate_size=inner)
    else:
        config = OPTConfig(**shared, ffn_dim=4 * hidden, word_embed_proj_dim=hidden)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
