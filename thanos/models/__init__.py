"""Transformers models: open them, walk their decoder blocks, write the pruned ones.

Knows no pruning method and no config object: what to do with a layer comes in as a function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blocks import DecoderBlocks, find_blocks, linear_layers
    from .checkpoint import check_copied, copied, copy_checkpoint, publish, weights_of
    from .description import load_config, load_tokenizer
    from .finished_blocks import FinishedBlocks, work_folder
    from .forward import logits_by_blocks, logits_of_batches, states_by_blocks
    from .kept_states import hidden_states
    from .layer import LayerRecord, PrunedWeight, PruneLayer
    from .linear import LinearLayer
    from .loading import load_model
    from .sequential import prune_model
    from .source import BlocksInMemory, BlockSource
    from .streaming import StreamedBlocks

# Loaded on first use: a workflow that only asks for the memory plan needs no torch.
_MODULES = {
    "BlockSource": "source",
    "BlocksInMemory": "source",
    "DecoderBlocks": "blocks",
    "FinishedBlocks": "finished_blocks",
    "LayerRecord": "layer",
    "LinearLayer": "linear",
    "PruneLayer": "layer",
    "PrunedWeight": "layer",
    "StreamedBlocks": "streaming",
    "check_copied": "checkpoint",
    "copied": "checkpoint",
    "copy_checkpoint": "checkpoint",
    "find_blocks": "blocks",
    "hidden_states": "kept_states",
    "linear_layers": "blocks",
    "load_config": "description",
    "load_model": "loading",
    "load_tokenizer": "description",
    "logits_by_blocks": "forward",
    "logits_of_batches": "forward",
    "states_by_blocks": "forward",
    "prune_model": "sequential",
    "publish": "checkpoint",
    "weights_of": "checkpoint",
    "work_folder": "finished_blocks",
}

__all__ = [
    "BlockSource",
    "BlocksInMemory",
    "DecoderBlocks",
    "FinishedBlocks",
    "LayerRecord",
    "LinearLayer",
    "PruneLayer",
    "PrunedWeight",
    "StreamedBlocks",
    "check_copied",
    "copied",
    "copy_checkpoint",
    "find_blocks",
    "hidden_states",
    "linear_layers",
    "load_config",
    "load_model",
    "load_tokenizer",
    "logits_by_blocks",
    "logits_of_batches",
    "prune_model",
    "publish",
    "states_by_blocks",
    "weights_of",
    "work_folder",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
