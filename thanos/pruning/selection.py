"""Exact choice of what to remove: the k smallest, ties to the lowest index.

A score is |W_ij|·s_j with one scale s_j per column, so it is never stored for a whole layer: it is
recomputed in slices that fit a cache, and only candidates near the threshold are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Size of the sample of scores that brackets the threshold.
_SAMPLE = 1 << 14
# Scores per slice: small enough for a processor's cache, and for exact counts in float32.
_SLICE = 1 << 18
_SLICE_ON_GPU = 1 << 23


@dataclass(frozen=True)
class Choice:
    """The k smallest scores of W, held as a threshold and the ties that belong to it."""

    threshold: float
    takes_ties: bool  # every score equal to the threshold is chosen
    ties: Tensor | None  # (t, 2) rows and columns of the ties chosen when not all are

    def mask(self, W: Tensor, scale: Tensor, first_column: int = 0) -> Tensor:
        """Whether each entry of `W` is chosen; W may be a range of columns of the scored matrix.

        Args:
            W: (c, w), columns first_column … first_column + w of what was scored.
            scale: (w,), their column scales.
            first_column: where the range starts.
        """
        scores = _scores(W, scale)
        if self.takes_ties:
            return scores <= self.threshold
        chosen = scores < self.threshold
        if self.ties is not None:
            columns = self.ties[:, 1] - first_column
            inside = (columns >= 0) & (columns < W.shape[1])
            chosen[self.ties[inside, 0], columns[inside]] = True
        return chosen


def choose_smallest(W: Tensor, scale: Tensor, k: int) -> Choice:
    """Choose the k smallest of |W_ij|·scale_j; ties to the lowest row, then the lowest column.

    Args:
        W: (c, w) weights.
        scale: (w,) non-negative column scales.
        k: number of entries, 0 ≤ k ≤ c·w.
    """
    if k == 0:
        return Choice(-1.0, takes_ties=True, ties=None)
    if k == W.numel():
        return Choice(float("inf"), takes_ties=True, ties=None)
    threshold, below, tied = _kth_smallest(W, scale, k)
    if below + tied == k:
        return Choice(threshold, takes_ties=True, ties=None)
    ties = [
        (scores == threshold).nonzero() + torch.tensor([row, 0], device=W.device)
        for row, scores in _slices(W, scale)
    ]
    return Choice(threshold, takes_ties=False, ties=torch.cat(ties)[: k - below])


def smallest_per_row(scores: Tensor, k: int) -> Tensor:
    """Mask of the k smallest scores of every row, ties to the lowest column; (c, w) bool."""
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(k, dim=1, keepdim=True).values
    chosen = scores <= threshold
    if int(chosen.sum()) > k * len(scores):
        below = scores < threshold
        tied = chosen & ~below
        room = k - below.sum(1, keepdim=True)
        chosen = below | (tied & (tied.cumsum(1) <= room))
    return chosen


def smallest_per_group(scores: Tensor, removed: int, m: int) -> Tensor:
    """Mask of the `removed` smallest of every m consecutive scores of a row, ties to the lowest.

    Counts for each member how many of its group rank before it: for the small m of n:m patterns
    m²/2 comparisons of whole matrices cost less than sorting many tiny groups.

    Args:
        scores: (c, w), w a multiple of m.
        removed: number removed per group, m − n.
        m: group size.
    """
    members = scores.unflatten(1, (-1, m)).movedim(2, 0).contiguous()  # (m, c, w/m)
    rank = torch.zeros_like(members, dtype=torch.uint8 if m < 256 else torch.int32)
    for j in range(1, m):
        earlier_first = members[:j] <= members[j]
        rank[j] += earlier_first.sum(0, dtype=rank.dtype)
        rank[:j] += ~earlier_first
    return (rank < removed).movedim(0, 2).flatten(1)


def smallest_columns(losses: Tensor, k: int) -> Tensor:
    """Mask of the k smallest of (b,) column losses, ties to the lowest index."""
    chosen = torch.zeros_like(losses, dtype=torch.bool)
    chosen[losses.argsort(stable=True)[:k]] = True
    return chosen


def _scores(W: Tensor, scale: Tensor) -> Tensor:
    return torch.mul(W, scale).abs_()


def _slices(W: Tensor, scale: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, scores) in slices of rows; every slice is written over the one before."""
    rows = max(1, (_SLICE_ON_GPU if W.is_cuda else _SLICE) // W.shape[1])
    buffer = W.new_empty((min(rows, len(W)), W.shape[1]))
    for row in range(0, len(W), rows):
        part = W[row : row + rows]
        yield row, torch.mul(part, scale, out=buffer[: len(part)]).abs_()


def _sample(W: Tensor, scale: Tensor) -> Tensor:
    """`_SAMPLE` scores spread over rows and columns, sorted."""
    flat = torch.arange(_SAMPLE, device=W.device)
    # An odd stride near total/sample visits rows evenly and, wrapping, the columns as well.
    flat = flat * (W.numel() // _SAMPLE | 1) % W.numel()
    rows, columns = flat // W.shape[1], flat % W.shape[1]
    return (W[rows, columns] * scale.expand(W.shape[1])[columns]).abs_().sort().values


def _kth_smallest(W: Tensor, scale: Tensor, k: int) -> tuple[float, int, int]:
    """The k-th smallest score, the number of scores below it and the number equal to it.

    A sample brackets the threshold, one pass counts what lies below the bracket and keeps what lies
    in it; the rank within the bracket is exact. A count that proves the bracket wrong widens it.
    """
    total = W.numel()
    if total <= 4 * _SAMPLE:
        return _kth_of(_scores(W, scale).flatten(), k)
    sample = _sample(W, scale)
    share = k / total
    margin = 4 * (_SAMPLE * share * (1 - share)) ** 0.5 + 2  # standard deviations of the rank
    while True:
        low_rank, high_rank = int(share * _SAMPLE - margin), int(share * _SAMPLE + margin)
        low = float(sample[low_rank]) if low_rank >= 0 else -1.0
        high = float(sample[high_rank]) if high_rank < _SAMPLE else float("inf")
        below, candidates = _bracketed(W, scale, low, high)
        if below < k <= below + len(candidates):
            if len(candidates) == total:  # mostly ties: no bracket is narrower
                return _kth_of(candidates, k)
            found, lower, tied = _kth_smallest(candidates[None], scale.new_ones(1), k - below)
            return found, below + lower, tied
        margin *= 4


def _kth_of(scores: Tensor, k: int) -> tuple[float, int, int]:
    threshold = scores.kthvalue(k).values
    below, tied = (scores < threshold).sum(), (scores == threshold).sum()
    return float(threshold), int(below), int(tied)


def _bracketed(W: Tensor, scale: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """Number of scores below `low`, and the scores in [low, high]."""
    below, kept = 0, []
    flags = W.new_empty((2, 0))
    for _, scores in _slices(W, scale):
        if len(flags[0]) != len(scores):
            flags = torch.empty((2, *scores.shape), dtype=W.dtype, device=W.device)
        # Comparisons written as floats are several times faster than as booleans.
        under = torch.lt(scores, low, out=flags[0])
        inside = torch.le(scores, high, out=flags[1])
        below += int(under.sum())
        kept.append(scores.flatten()[inside.sub_(under).flatten().nonzero().squeeze(1)])
    return below, torch.cat(kept)
