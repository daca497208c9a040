"""How far a model's predictions are from those of the dense one, on windows of held-out text."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True)
class DivergenceResult:
    """Means over the tokens that a perplexity is of, and over those of each window."""

    divergence: float  # KL(dense ‖ model) in nats per token
    same_top: float  # of tokens for which both find the same one the most likely, in percent
    windows: int
    seqlen: int
    window_divergences: tuple[float, ...]
    window_same_top: tuple[float, ...]


@torch.inference_mode()
def divergence_of_logits(
    logits: Iterable[Iterable[Tensor]], dense: Iterable[Iterable[Tensor]], windows: Tensor
) -> DivergenceResult:
    """The divergence of a model from the dense one, given what both predict.

    Σ_v p(v) (log p(v) - log q(v)) with p of the dense model and q of the other, at every position
    that a next token of the window follows.

    Args:
        logits: of one window after the other, each in slices (t, V) of its positions in order.
        dense: the dense model's, in the same slices.
        windows: (n, T) token ids.

    Raises:
        UserError: if there is no window of two tokens, or a divergence is not finite.
    """
    count, seqlen = windows.shape
    if count == 0 or seqlen < 2:
        raise UserError(
            f"divergence: {count} windows of {seqlen} tokens; needs one of at least two"
        )
    divergences: list[float] = []
    same: list[float] = []
    for ours, theirs in zip(logits, dense, strict=True):
        pairs = [_of_slice(*pair) for pair in zip(ours, theirs, strict=True)]
        nats, equal = (torch.cat(parts)[: seqlen - 1].cpu() for parts in zip(*pairs, strict=True))
        divergences.append(nats.double().mean().item())
        same.append(100 * equal.double().mean().item())
        if not math.isfinite(divergences[-1]):
            raise UserError(
                f"divergence: that of window {len(same) - 1} is {divergences[-1]}; the model's "
                "weights or activations overflow, try float32 or bfloat16"
            )
    mean, share = (math.fsum(values) / count for values in (divergences, same))
    return DivergenceResult(mean, share, count, seqlen, tuple(divergences), tuple(same))


def _of_slice(logits: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergence and whether the top tokens are equal (t,), of logits (t, V)."""
    log_q, log_p = (part.float().log_softmax(-1) for part in (logits, dense))
    nats = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return nats, log_q.argmax(-1) == log_p.argmax(-1)
