"""Exact choice of what to remove: the k smallest, ties to the lowest index.

A score is |W_ij|·s_j with one scale s_j per column, so it is never stored for a whole layer: it is
recomputed in slices that fit a cache, and only candidates near the threshold are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thanos.accelerator import is_accelerator, read

# Size of the sample of scores that brackets the threshold.
_SAMPLE = 1 << 14
# Scores per slice: small enough for a processor's cache, and for exact counts in float32.
_SLICE = 1 << 18
_SLICE_ON_ACCELERATOR = 1 << 25
# So few that an accelerator sorts their groups sooner than the host asks it for comparisons.
_FEW = 1 << 18
# Scores that are looked through together for those in the bracket.
_BUNCH = 16
# An expected threshold is trusted to three times its last relative move, within these limits: a
# narrower bracket is missed too often, a wider one holds more scores than the sample's.
_NARROWEST, _WIDEST = 1e-3, 2e-2
_FIRST_DRIFT = 3e-3  # presumed of a threshold that came unexpected


@dataclass(frozen=True)
class Choice:
    """The k smallest scores of W, held as a threshold and the ties that belong to it."""

    threshold: float
    takes_ties: bool  # every score equal to the threshold is chosen
    ties: Tensor | None = None  # (t, 2) rows and columns of the ties chosen when not all are
    drift: float = _FIRST_DRIFT  # relative distance of the threshold from the one expected

    def mask(self, W: Tensor, scale: Tensor) -> Tensor:
        """Whether each entry of `W` is chosen; W may be the first columns of what was scored.

        Args:
            W: (c, w).
            scale: (w,), their column scales.
        """
        mask = torch.empty(W.shape, dtype=torch.bool, device=W.device)
        for row, scores in _slices(W, scale):
            compare = torch.le if self.takes_ties else torch.lt
            compare(scores, self.threshold, out=mask[row : row + len(scores)])
        if self.ties is not None:
            inside = self.ties[self.ties[:, 1] < W.shape[1]]
            mask[inside[:, 0], inside[:, 1]] = True
        return mask


def choose_smallest(W: Tensor, scale: Tensor, k: int, expected: Choice | None = None) -> Choice:
    """Choose the k smallest of |W_ij|·scale_j; ties to the lowest row, then the lowest column.

    Args:
        W: (c, w) weights.
        scale: (w,) non-negative column scales.
        k: number of entries, 0 ≤ k ≤ c·w.
        expected: the choice from similar scores; a close guess saves time, a bad one costs some.
    """
    if k == 0:
        return Choice(-1.0, takes_ties=True)
    if k == W.numel():
        return Choice(float("inf"), takes_ties=True)
    threshold, below, tied = _kth_smallest(W, scale, k, expected)
    drift = _FIRST_DRIFT
    if expected is not None and 0 < expected.threshold < float("inf"):
        drift = abs(threshold / expected.threshold - 1)
    if below + tied == k:
        return Choice(threshold, takes_ties=True, drift=drift)
    ties, missing = [], k - below
    for row, scores in _slices(W, scale):
        found = (scores == threshold).nonzero()[:missing]
        found[:, 0] += row
        ties.append(found)
        missing -= len(found)
        if missing == 0:
            break
    return Choice(threshold, takes_ties=False, ties=torch.cat(ties), drift=drift)


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
    m²/2 comparisons of whole matrices cost less than sorting many tiny groups; on an accelerator
    the launch of an operation costs more than either, where there are few of them.

    Args:
        scores: (c, w), w a multiple of m.
        removed: number removed per group, m − n.
        m: group size.
    """
    groups = scores.unflatten(1, (-1, m))
    if is_accelerator(scores.device) and scores.numel() <= _FEW:
        first = groups.sort(dim=2, stable=True).indices[:, :, :removed]
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(2, first, True).flatten(1)
    members = groups.movedim(2, 0).contiguous()  # (m, c, w/m)
    rank = torch.zeros_like(members, dtype=torch.uint8 if m < 256 else torch.int32)
    for j in range(1, m):
        earlier_first = members[:j] <= members[j]
        rank[j] += earlier_first.sum(0, dtype=rank.dtype)
        rank[:j] += ~earlier_first
    return (rank < removed).movedim(0, 2).flatten(1)


def smallest_columns(losses: Tensor, k: int, unit: int = 1) -> Tensor:
    """Mask of the k columns of the smallest of (b,) losses, ties to the lowest index.

    Args:
        losses: of the columns.
        k: number of columns, a multiple of `unit`.
        unit: consecutive columns that go together, by the sum of their losses.
    """
    losses = losses.view(-1, unit).sum(1)
    chosen = torch.zeros_like(losses, dtype=torch.bool)
    chosen[losses.argsort(stable=True)[: k // unit]] = True
    return chosen.repeat_interleave(unit)


def _slices(W: Tensor, scale: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, scores) in slices of rows; every slice is written over the one before."""
    rows = max(1, (_SLICE_ON_ACCELERATOR if is_accelerator(W.device) else _SLICE) // W.shape[1])
    buffer = W.new_empty((min(rows, len(W)), W.shape[1]))
    for row in range(0, len(W), rows):
        part = W[row : row + rows]
        yield row, torch.mul(part, scale, out=buffer[: len(part)]).abs_()


def _kth_smallest(
    W: Tensor, scale: Tensor, k: int, expected: Choice | None
) -> tuple[float, int, int]:
    """The k-th smallest score, the number of scores below it and the number equal to it.

    A bracket around the threshold is guessed, from the one expected or from a sample. One pass
    counts what lies below the bracket and keeps the few scores in it, among which the rank is
    exact. A count that proves the bracket wrong widens it.
    """
    if W.numel() <= 4 * _SAMPLE:
        return _kth_of(torch.mul(W, scale).abs_().flatten(), k)
    for low, high in _brackets(W, scale, k, expected):
        up_to_low, inside = _between(W, scale, low, high)
        if up_to_low < k <= up_to_low + len(inside):
            threshold, below, tied = _kth_of(inside, k - up_to_low)
            return threshold, up_to_low + below, tied
        # Many equal scores: the threshold can be an end of the bracket itself.
        end = low if k <= up_to_low else high
        below, tied = _count(W, scale, end)
        if below < k <= below + tied:
            return end, below, tied
    raise AssertionError("the last bracket holds every score")


def _brackets(
    W: Tensor, scale: Tensor, k: int, expected: Choice | None
) -> Iterator[tuple[float, float]]:
    """Ever wider guesses (low, high) of where the k-th smallest score lies; the last holds all."""
    if expected is not None and 3 * expected.drift < _WIDEST and expected.threshold > 0:
        margin = max(_NARROWEST, 3 * expected.drift)
        yield expected.threshold * (1 - margin), expected.threshold * (1 + margin)
    sample, share = _sample(W, scale), k / W.numel()
    margin = 4 * (_SAMPLE * share * (1 - share)) ** 0.5 + 2  # standard deviations of the rank
    low, high = 0.0, 0.0
    while low >= 0 or high < float("inf"):
        low_rank, high_rank = int(share * _SAMPLE - margin), int(share * _SAMPLE + margin)
        low, high = read(sample[max(0, low_rank)], sample[min(high_rank, _SAMPLE - 1)])
        low = low if low_rank >= 0 else -1.0
        high = high if high_rank < _SAMPLE else float("inf")
        yield low, high
        margin *= 4


def _sample(W: Tensor, scale: Tensor) -> Tensor:
    """`_SAMPLE` scores spread over rows and columns, sorted."""
    flat = torch.arange(_SAMPLE, device=W.device)
    # An odd stride near total/sample visits rows evenly and, wrapping, the columns as well.
    flat = flat * (W.numel() // _SAMPLE | 1) % W.numel()
    rows, columns = flat // W.shape[1], flat % W.shape[1]
    return (W[rows, columns] * scale[columns]).abs_().sort().values


def _kth_of(scores: Tensor, k: int) -> tuple[float, int, int]:
    threshold = scores.kthvalue(k).values
    below, tied = (scores < threshold).sum(), (scores == threshold).sum()
    found = read(threshold, below, tied)
    return found[0], int(found[1]), int(found[2])


def _between(W: Tensor, scale: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """Number of scores up to `low`, and the scores in (low, high)."""
    if is_accelerator(W.device):
        return _between_there(W, scale, low, high)
    up_to_low, found = 0, []
    flags = W.new_empty((2, 0))
    for _, scores in _slices(W, scale):
        if flags.shape[1:] != scores.shape:
            flags = W.new_empty((2, *scores.shape))
        # Comparisons written as floats are several times faster than as booleans.
        under = torch.le(scores, low, out=flags[0])
        inside = torch.lt(scores, high, out=flags[1])
        up_to_low += int(under.sum())
        found.append(_pick(scores.flatten(), inside.sub_(under).flatten()))
    return up_to_low, torch.cat(found)


def _between_there(W: Tensor, scale: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """The same on an accelerator, which is waited for once per slice and once in the end."""
    up_to_low, found = torch.zeros((), dtype=torch.int64, device=W.device), []
    for _, scores in _slices(W, scale):
        under = scores <= low
        up_to_low += under.sum()
        found.append(scores[(scores < high) & ~under])
    return int(up_to_low), torch.cat(found)


def _pick(scores: Tensor, flags: Tensor) -> Tensor:
    """The few scores whose flag is 1: bunches without any are passed over together."""
    whole = len(scores) // _BUNCH * _BUNCH
    bunches = flags[:whole].view(_BUNCH, -1)
    columns = bunches.sum(0).nonzero().squeeze(1)
    kept = bunches.index_select(1, columns).bool()
    picked = scores[:whole].view(_BUNCH, -1).index_select(1, columns)[kept]
    return torch.cat([picked, scores[whole:][flags[whole:].bool()]])


def _count(W: Tensor, scale: Tensor, value: float) -> tuple[int, int]:
    """Number of scores below `value`, and equal to it."""
    below, tied = torch.zeros((2,), dtype=torch.int64, device=W.device)
    for _, scores in _slices(W, scale):
        below += (scores < value).sum()
        tied += (scores == value).sum()
    found = read(below, tied)
    return int(found[0]), int(found[1])
