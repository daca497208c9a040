"""Layers to be timed: the statistics of a trained model's layer without the model."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from thanos.pruning import InputStatistics

_TOKENS_AT_ONCE = 4096


@dataclass(frozen=True)
class SyntheticLayer:
    """A weight (c, b) and what calibration tells of its inputs: with the Gram matrix, and without.

    The statistics are never pruned with, but copied: a factor stays in the copy.
    """

    W: Tensor
    inputs: InputStatistics
    diagonal: InputStatistics


def synthetic_layer(shape: tuple[int, int], device: torch.device | str = "cpu") -> SyntheticLayer:
    """A float32 layer whose inputs are correlated like those of a trained model.

    Inputs are a low-rank signal (rank b/8, decaying) plus noise, their norms spread log-normally;
    weights are Gaussian; the tokens are 2·b. Drawn on the CPU, the numbers are the same everywhere.

    Args:
        shape: (c, b).
        device: where the layer is put.
    """
    c, b = shape
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    rank = max(1, b // 8)
    directions = torch.arange(1, rank + 1).rsqrt()[:, None] * normal(rank, b)
    norms = (0.5 * normal(b)).exp()
    layer = SyntheticLayer(
        W=(normal(c, b) / b**0.5).to(device),
        inputs=InputStatistics(b, device=device),
        diagonal=InputStatistics(b, gram=False, device=device),
    )
    left = 2 * b
    while left > 0:
        T = min(left, _TOKENS_AT_ONCE)
        X = ((normal(T, rank) @ directions + 0.5 * normal(T, b)) * norms).to(device)
        layer.inputs.update(X)
        layer.diagonal.update(X)
        left -= T
    return layer
