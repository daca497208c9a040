"""Channel permutation: which of a layer's input channels share the groups of an n:m pattern.

A group of m consecutive columns keeps n weights of a row, however many of its m matter. Where the
channels of a layer can change places, they are dealt out so that more of what matters stays: by the
sums of their scores first, then once for every place in a group by a linear assignment (RIA, "Plug-
and-Play: An Efficient Post-training Pruning Method for Large Language Models", ICLR 2024).
"""

from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from thanos.accelerator import read, widest

from .composition import Method
from .memory import row_segments
from .patterns import SemiStructured
from .statistics import InputStatistics

# Rows are taken in segments of so many bytes of scores. Not by the memory budget: where channels
# add the same, how their sums were rounded decides, and that must not depend on a machine's memory.
_SEGMENT = 4 * 2**20


def channel_scale(
    method: Method, statistics: InputStatistics | None, W: Tensor, dtype: torch.dtype
) -> Tensor:
    """The metric's scales s_j, (b,), that say which channels share a group.

    Those of SparseGPT's depend on the order of the columns, so that it takes Wanda's.
    """
    if method.metric == "magnitude":
        return torch.ones(W.shape[1], dtype=dtype, device=W.device)
    assert statistics is not None
    return statistics.squared_norms.to(dtype).sqrt()


def permuted_channels(
    W: Tensor, scale: Tensor, channels: Tensor, pattern: SemiStructured
) -> Tensor:
    """The order in which channels come to keep more of the scores |W_ij|·s_j, (pools, k).

    Args:
        W: (rows, b).
        scale: s, (b,).
        channels: (pools, k, copies), the columns of each channel. Those of a pool can change
            places, all columns of a channel with it; its columns of one copy are consecutive. A
            pool that is no whole number of groups stays in its order.
        pattern: n:m.
    """
    orders = [_order(_Scores(W, scale, pool), pattern) for pool in channels]
    return torch.stack(orders)


def column_order(channels: Tensor, order: Tensor, columns: int) -> Tensor:
    """Which column comes where, (b,), when channels (pools, k, copies) come in an order (pools, k).

    The same says which rows come where of the layers that make the channels.
    """
    moved = torch.arange(columns, device=channels.device)
    moved[channels] = channels.take_along_dim(order[:, :, None], 1)
    return moved


class _Scores:
    """The scores of a pool's channels, computed for some rows at a time."""

    def __init__(self, W: Tensor, scale: Tensor, pool: Tensor) -> None:
        self._W, self._scale, self._pool = W, scale, pool
        self.channels = len(pool)

    def __iter__(self) -> Iterator[Tensor]:
        """(rows · copies, k), segment by segment."""
        row = self._pool.numel() * self._scale.element_size()
        for rows in row_segments(len(self._W), row, _SEGMENT):
            scores = (
                self._W[rows][:, self._pool].to(self._scale).abs_().mul_(self._scale[self._pool])
            )
            yield scores.transpose(1, 2).flatten(0, 1)

    def sums(self) -> Tensor:
        return torch.stack([scores.sum(0) for scores in self]).sum(0)

    def kept(self, groups: Tensor, n: int) -> Tensor:
        """What stays of all scores where each group (groups, m) keeps n."""
        wide = widest(groups.device)
        return torch.stack(
            [scores[:, groups].topk(n, -1).values.sum(dtype=wide) for scores in self]
        ).sum()


def _order(scores: _Scores, pattern: SemiStructured) -> Tensor:
    n, m = pattern.n, pattern.m
    sums = scores.sums()
    given = torch.arange(scores.channels, device=sums.device)
    if scores.channels % m:
        return given
    # Each group gets one channel of the largest, one of the next ones, and so on.
    dealt = sums.argsort(descending=True, stable=True).view(m, -1).T
    choices = [given.view(-1, m), dealt]
    kept = read(*(scores.kept(groups, n) for groups in choices))
    groups = choices[kept[1] > kept[0]].contiguous()
    for place in range(m):
        groups[:, place] = _assigned(scores, groups, place, n)
    return groups.flatten()


def _assigned(scores: _Scores, groups: Tensor, place: int, n: int) -> Tensor:
    """The channels at one place of all groups (groups, m), each where it adds most.

    A group of the other m - 1, of which the n-th largest is t, keeps max(0, x - t) more with x:
    half of |x - t| + x - t, and the sums of x and t are the same whoever goes where.
    """
    moving = groups[:, place]
    others = torch.cat([groups[:, :place], groups[:, place + 1 :]], 1)
    gain = torch.zeros((), device=groups.device)
    for part in scores:
        threshold = part[:, others].topk(n, -1).values[..., -1]  # (rows, groups)
        gain = gain + torch.cdist(threshold.T, part[:, moving].T, p=1)
    _, chosen = linear_sum_assignment(gain.cpu().numpy(), maximize=True)
    return moving[torch.as_tensor(chosen, device=moving.device)]
