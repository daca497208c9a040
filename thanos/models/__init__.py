"""Transformers models: open them, walk their decoder blocks, write the pruned ones.

Knows no pruning method and no config object: what to do with a layer comes in as a function.
"""

from .blocks import DecoderBlocks, LinearLayer, find_blocks, linear_layers
from .checkpoint import save_checkpoint
from .layer import LayerRecord, PrunedWeight, PruneLayer
from .loading import load_config, load_model, load_tokenizer
from .sequential import prune_model
from .source import BlocksInMemory, BlockSource

__all__ = [
    "BlockSource",
    "BlocksInMemory",
    "DecoderBlocks",
    "LayerRecord",
    "LinearLayer",
    "PruneLayer",
    "PrunedWeight",
    "find_blocks",
    "linear_layers",
    "load_config",
    "load_model",
    "load_tokenizer",
    "prune_model",
    "save_checkpoint",
]
