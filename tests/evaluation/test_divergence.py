"""Predictions beside the dense model's: on paper, and of whole models."""

import math

import pytest
import torch

from thanos.errors import UserError
from thanos.evaluation.divergence import divergence_of_logits


def logits(*distributions):
    """One window's logits, in slices of two positions."""
    return torch.tensor(distributions).log().split(2)


def test_hand_made_predictions():
    # KL((1/2, 1/2) ‖ (1/4, 3/4)) = log 2 - log 3 / 2, of two of three predictions; the top token is
    # the same in the last. What follows the window is not asked.
    dense = logits([0.5, 0.5], [0.5, 0.5], [0.1, 0.9], [0.5, 0.5])
    other = logits([0.25, 0.75], [0.25, 0.75], [0.1, 0.9], [0.9, 0.1])
    result = divergence_of_logits([other, dense], [dense, dense], torch.zeros(2, 4).long())
    each = math.log(2) - math.log(3) / 2
    assert result.window_divergences == pytest.approx((2 / 3 * each, 0.0), rel=1e-6)
    assert result.window_same_top == pytest.approx((100 / 3, 100.0))
    assert result.divergence == pytest.approx(each / 3, rel=1e-6)
    assert result.same_top == pytest.approx(200 / 3)
    assert (result.windows, result.seqlen) == (2, 4)


def test_what_overflows_is_said():
    broken = [torch.full((4, 2), math.inf).split(2)]
    with pytest.raises(UserError, match="divergence: that of window 0 is nan"):
        divergence_of_logits(broken, [logits(*[[0.5, 0.5]] * 4)], torch.zeros(1, 4).long())
    with pytest.raises(UserError, match="needs one of at least two"):
        divergence_of_logits([], [], torch.zeros(0, 4).long())
