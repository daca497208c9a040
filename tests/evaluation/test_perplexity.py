import math
from types import SimpleNamespace

import pytest
import torch

from thanos.errors import UserError
from thanos.evaluation import perplexity as module
from thanos.evaluation.perplexity import perplexity


class FixedLogits(torch.nn.Module):
    """Predicts the same distribution everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


@pytest.fixture
def windows(model):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, (5, 24), generator=generator)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    result = perplexity(FixedLogits([0.0] * 50), torch.arange(12).reshape(2, 6))
    assert result.perplexity == pytest.approx(50, rel=1e-6)
    assert (result.windows, result.seqlen) == (2, 6)


def test_a_hand_made_model():
    # p = (1/2, 1/4, 1/4). The first token is given: windows (_, 0, 0) and (_, 1, 2).
    model = FixedLogits([math.log(2), 0.0, 0.0])
    result = perplexity(model, torch.tensor([[2, 0, 0], [0, 1, 2]]))
    assert result.window_losses == pytest.approx((math.log(2), math.log(4)))
    assert result.loss == pytest.approx(1.5 * math.log(2))
    assert result.perplexity == pytest.approx(2**1.5)


def test_it_agrees_with_the_models_own_loss(model, windows):
    with torch.no_grad():
        losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    result = perplexity(model, windows, batch_size=2)
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / 5), rel=1e-6)
    assert result.window_losses == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("batch_size", [2, 3, 5, 64])
def test_the_batch_size_does_not_matter(model, windows, batch_size):
    one = perplexity(model, windows, batch_size=1)
    many = perplexity(model, windows, batch_size=batch_size)
    assert many.perplexity == pytest.approx(one.perplexity, rel=1e-6)


def test_neither_does_the_chunking_of_positions(model, windows, monkeypatch):
    whole = perplexity(model, windows)
    monkeypatch.setattr(module, "POSITIONS_PER_SLICE", 5)
    assert perplexity(model, windows) == whole


def test_half_precision_logits_are_widened():
    model = FixedLogits([0.0] * 1000).bfloat16()
    # In bfloat16 the loss itself would be rounded to 6.91 +- 0.02.
    assert perplexity(model, torch.zeros(1, 300, dtype=torch.long)).perplexity == pytest.approx(
        1000, rel=1e-5
    )


def test_a_loss_that_is_not_finite_names_its_window():
    model = FixedLogits([0.0, -math.inf])
    with pytest.raises(UserError, match="the loss of window 2 is inf"):
        perplexity(model, torch.tensor([[0, 0], [1, 0], [0, 1]]), batch_size=3)
    with pytest.raises(UserError, match="the loss of window 0 is nan"):
        perplexity(FixedLogits([math.nan, 0.0]), torch.tensor([[0, 0]]))
    with pytest.raises(UserError, match=r"exp\(1000.0\) is not finite"):
        perplexity(FixedLogits([0.0, -1000.0]), torch.tensor([[0, 1]]))


@pytest.mark.parametrize("shape", [(0, 8), (3, 1)])
def test_nothing_to_predict(model, shape):
    with pytest.raises(UserError, match="needs one of at least two"):
        perplexity(model, torch.zeros(shape, dtype=torch.long))


def test_the_model_is_left_as_it_was(model, windows):
    model.train()
    perplexity(model, windows)
    assert model.training
    model.eval()
