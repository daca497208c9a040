"""Random decoders of the paper's two families in any width: only their shapes matter for speed."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from thanos.accelerator import give_back_memory

FAMILIES = ("llama", "opt")
_VOCABULARY = 512
_HEAD = 64  # channels of an attention head


def random_model(
    family: str,
    hidden: int,
    layers: int,
    context: int,
    vocabulary: int = _VOCABULARY,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """A decoder in evaluation mode, with the family's ratio of widths; always the same.

    Args:
        family: one of `FAMILIES`; `llama` with 4096 has the layers of LLaMA-7B.
        hidden: width of the hidden states, a multiple of 64.
        layers: number of decoder blocks.
        context: longest window in tokens.
        vocabulary: number of tokens.
        dtype: of its weights.
        device: where it is made.
    """
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
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
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def write_random_model(
    folder: Path,
    family: str,
    hidden: int,
    layers: int,
    context: int,
    tokenized_like: Path,
    device: torch.device,
) -> None:
    """Write a folder with a `random_model` in bfloat16 and the tokenizer of another model's."""
    vocabulary = json.loads((tokenized_like / "config.json").read_text())["vocab_size"]
    model = random_model(family, hidden, layers, context, vocabulary, torch.bfloat16, device)
    model.save_pretrained(folder)
    del model
    give_back_memory(device)
    for file in tokenized_like.glob("tokenizer*.json"):
        shutil.copy(file, folder)
