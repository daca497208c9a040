"""The logits that go block by block, as the whole model gives them."""

import torch
from torch import Tensor

from thanos.models import BlockSource, logits_by_blocks


def whole_logits(source: BlockSource, windows: Tensor, batch_size: int) -> Tensor:
    """Logits (n, T, V) of windows (n, T), in batches of that many."""
    slices = logits_by_blocks(source, windows, batch_size, "cpu")
    return torch.stack([torch.cat(list(window)) for window in slices])
