"""Whether a model looks at the tokens that it is to predict."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thanos.errors import UserError

from .blocks import DecoderBlocks
from .replay import record

# Of what the block adds to its inputs. Rounding, also in half precision, changes far less of it;
# attention to both sides changes about as much of it as there is.
_MOST_CHANGED = 0.05


class CausalProbe:
    """One window twice, the second time with other tokens at its end: its beginning must not tell.

    An encoder that is opened as a decoder runs, and its perplexity is too good to be true. One
    block shows it, before anything is pruned or measured.

    Args:
        model: able to run up to its first block.
        blocks: of the model.
        windows: (n, T) token ids; of these, only the first is used.
    """

    def __init__(self, model: PreTrainedModel, blocks: DecoderBlocks, windows: Tensor) -> None:
        self._name = type(model).__name__
        first = windows[:1]
        self._tokens = first.shape[1]
        self._given = self._tokens // 2
        other = first.clone()
        # A token that the window has anyway: others may mean something, such as an image.
        other[:, self._given :] = first[:, :1]
        self._recording = record(model, blocks, torch.cat([first, other]), batch_size=1)

    def check(self, block: nn.Module, device: torch.device | str) -> None:
        """Run the model's first block on both.

        Raises:
            UserError: its outputs before the change differ.
        """
        before = self._recording.hidden[0]
        axis = self._axis_of_tokens(before)
        if axis is None:
            return
        runs = self._recording.passes(0, block, device)
        one, other = (run().narrow(axis, 0, self._given).float() for run in runs)
        added = one - before.narrow(axis, 0, self._given).to(one.device).float()
        if (one - other).norm() > _MOST_CHANGED * added.norm():
            raise UserError(
                f"{self._name} is not causal: what it computes for a token depends on later ones, "
                "so that it sees what it is to predict; give a decoder (for the BERT family set "
                "is_decoder in config.json)"
            )

    def _axis_of_tokens(self, states: Tensor) -> int | None:
        """Some models keep several streams of hidden states, before or behind the tokens."""
        axes = range(states.dim() - 1)  # features come last
        found = [axis for axis in axes if states.shape[axis] == self._tokens]
        return next(iter(found or axes[1:2]), None)
