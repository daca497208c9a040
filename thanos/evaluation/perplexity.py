"""Perplexity over windows of tokens that do not overlap."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from tqdm import tqdm

from ..errors import UserError
from ..models.forward import POSITIONS_PER_SLICE


@dataclass(frozen=True)
class PerplexityResult:
    """Perplexity and the losses it is made of, in nats per token."""

    perplexity: float  # exp(loss)
    loss: float  # mean over windows of the mean next-token loss
    windows: int
    seqlen: int
    window_losses: tuple[float, ...]


@torch.inference_mode()
def perplexity(
    model: torch.nn.Module, windows: torch.Tensor, batch_size: int = 1
) -> PerplexityResult:
    """Measure a causal language model's perplexity.

    Each window is scored on its own: its first token is given, the other seqlen - 1 are predicted.
    The batch size changes speed and memory (batch_size x seqlen x vocabulary logits), not the
    result, except for rounding.

    Args:
        model: returns `.logits` (B, T, V) for `input_ids`; its weights lie where it is to run.
        windows: (n, seqlen) token ids.

    Raises:
        UserError: if there is no window of two tokens, or a loss is not finite.
    """
    device = next(model.parameters()).device

    def logits() -> Iterator[Iterable[torch.Tensor]]:
        for batch in tqdm(windows.split(batch_size), desc="perplexity", leave=False, disable=None):
            rows = model(input_ids=batch.to(device), use_cache=False).logits  # (B, T, V)
            yield from (row.split(POSITIONS_PER_SLICE) for row in rows)

    training = model.training
    model.eval()
    result = perplexity_of_logits(logits(), windows)
    model.train(training)
    return result


@torch.inference_mode()
def perplexity_of_logits(
    logits: Iterable[Iterable[torch.Tensor]], windows: torch.Tensor
) -> PerplexityResult:
    """The perplexity that a model's logits give, however they were computed.

    Args:
        logits: of one window after the other, each in slices (t, V) of its positions in order.
        windows: (n, T) token ids.

    Raises:
        UserError: if there is no window of two tokens, or a loss is not finite.
    """
    count, seqlen = windows.shape
    if count == 0 or seqlen < 2:
        raise UserError(
            f"perplexity: {count} windows of {seqlen} tokens; needs one of at least two"
        )
    losses: list[float] = []
    for slices in logits:
        loss = _mean_next_token_loss(slices, windows[len(losses)])
        if not math.isfinite(loss):
            raise UserError(
                f"perplexity: the loss of window {len(losses)} is {loss}; "
                "the model's weights or activations overflow, try float32 or bfloat16"
            )
        losses.append(loss)
    mean = math.fsum(losses) / count
    return PerplexityResult(_exponent(mean), mean, count, seqlen, tuple(losses))


def _mean_next_token_loss(logits: Iterable[torch.Tensor], tokens: torch.Tensor) -> float:
    """Mean of -log p(tokens[t + 1] | tokens[..t]); logits in slices (t, V), tokens (T,)."""
    losses: list[torch.Tensor] = []
    ahead = 1
    for piece in logits:
        target = tokens[ahead : ahead + len(piece)].to(piece.device)
        predicted = piece[: len(target)].float()  # nothing follows the last token
        losses.append(torch.nn.functional.cross_entropy(predicted, target, reduction="none"))
        ahead += len(piece)
    return torch.cat(losses).cpu().double().mean().item()  # MPS has no float64


def _exponent(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError as error:
        raise UserError(
            f"perplexity: exp({loss:.1f}) is not finite; the model is broken, check its weights"
        ) from error
