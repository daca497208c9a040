"""Training recipe of the small decoders: two that are shipped, and a third family."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, OPTConfig, PreTrainedConfig, Qwen3Config

from .tokenizer import VOCABULARY_SIZE

CONTEXT = 256


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the trained weights besides the corpus and the architecture."""

    steps: int = 3000
    batch_size: int = 16  # windows of CONTEXT tokens per step
    learning_rate: float = 3e-3
    warmup_steps: int = 150
    weight_decay: float = 0.1
    gradient_clip: float = 1.0
    seed: int = 0


def architectures() -> Mapping[str, PreTrainedConfig]:
    """Return the configurations, about 4M weights each: the paper's two families, and Qwen3's.

    The latter is not shipped: it is for trying out on a family that nothing was chosen on.
    """
    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    gated: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 688}
    return {
        "doc-llama": LlamaConfig(**shared, **gated),
        "doc-opt": OPTConfig(
            **shared, ffn_dim=1024, word_embed_proj_dim=256, dropout=0.0, attention_dropout=0.0
        ),
        "doc-qwen": Qwen3Config(**shared, **gated, head_dim=64),
    }


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine decay to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: torch.nn.Module,
    tokens: torch.Tensor,
    recipe: Recipe,
    log: Callable[[int, float], None],
) -> None:
    """Train `model` in place by AdamW on windows drawn without replacement, epoch after epoch.

    Args:
        model: causal language model that returns `.loss` when given labels.
        tokens: (T,) token ids of the training split.
        recipe: hyperparameters; `recipe.seed` orders the windows.
        log: called with (step, training loss) after every step.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    order = torch.empty(0, dtype=torch.long)
    model.train()
    for step in range(recipe.steps):
        if len(order) < recipe.batch_size:  # a new epoch starts at a new phase of the windows
            phase = int(torch.randint(CONTEXT, (1,), generator=generator))
            windows = (len(tokens) - phase) // CONTEXT
            starts = phase + CONTEXT * torch.arange(windows)
            order = starts[torch.randperm(windows, generator=generator)]
        batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        input_ids = torch.stack([tokens[i : i + CONTEXT] for i in batch.tolist()])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, recipe)
        with torch.autocast(input_ids.device.type, dtype=torch.bfloat16):
            loss = model(input_ids=input_ids, labels=input_ids, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        log(step, float(loss.detach()))
    model.eval()
