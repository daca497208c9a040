"""Small pruned models of several layouts, and windows to train them on."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MixtralConfig

from thanos.models import linear_layers
from thanos.models.blocks import find_blocks
from thanos.models.loading import load_model
from thanos.pruning import prune_weight

VOCABULARY, LENGTH = 64, 16
SHAPES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGURATIONS = {
    "llama": LlamaConfig(
        **SHAPES, vocab_size=VOCABULARY, intermediate_size=40, tie_word_embeddings=True
    ),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=24, n_layer=2, n_head=2, n_positions=32),
    "mixtral": MixtralConfig(
        **SHAPES,
        vocab_size=VOCABULARY,
        intermediate_size=40,
        num_key_value_heads=2,
        num_local_experts=3,
        num_experts_per_tok=2,
    ),
}


def dense_model(kind: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(CONFIGURATIONS[kind], dtype=torch.float32).eval()


@pytest.fixture
def pruned(tmp_path):
    """Makes the folder of a model pruned by magnitude; `model` opens it."""

    def make(kind: str = "llama", pattern: str = "2:4") -> Path:
        model = dense_model(kind)
        blocks = find_blocks(model)
        for block, name in zip(blocks.modules, blocks.names, strict=True):
            for layer in linear_layers(block, name).values():
                result = prune_weight(layer.weight, None, "magnitude", pattern, measure_error=False)
                layer.write(result.weight)
        folder = tmp_path / f"{kind}-pruned"
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def windows() -> torch.Tensor:
    """Text that can be learned: counting, from anywhere."""
    starts = torch.randint(VOCABULARY, (32, 1), generator=torch.Generator().manual_seed(0))
    return (starts + torch.arange(LENGTH)) % VOCABULARY


def opened(folder: Path) -> torch.nn.Module:
    return load_model(folder, torch.float32)
