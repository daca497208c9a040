"""LoRA on pruned layers: low-rank updates that never reach a weight which was removed.

Plain LoRA adds `B A` next to the pruned weight, and merging it fills the zeros. Here a layer
computes with `W + M ⊙ (s B A)`, M being where W is not zero, while it is trained as well as after
the merge, so that what is trained is what is kept.
"""

import warnings
from collections.abc import Collection
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everywhere)
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from thanos.errors import UserError

from .zeros import pruned_layers

_SCALE = 2  # s = α/r


class _OnKeptWeights(lora.Linear):
    """peft's layer, with an update that is zero where the weight is."""

    def get_delta_weight(self, adapter: str) -> Tensor:
        """M ⊙ (s B A), in the weight's own layout."""
        weight = self.get_base_layer().get_parameter("weight")
        delta: Tensor = super().get_delta_weight(adapter)
        return delta.to(weight.dtype) * (weight != 0)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in_features) -> (…, out_features)."""
        layer: Any = self.get_base_layer()
        weight = layer.weight + self.get_delta_weight(self.active_adapters[0])
        return F.linear(x, weight.T if isinstance(layer, Conv1D) else weight, layer.bias)


def with_adapters(model: PreTrainedModel, rank: int, skip: Collection[str]) -> PeftModel:
    """The model with a LoRA adapter on every pruned layer, all else frozen.

    Args:
        model: changed in place.
        rank: r of the adapters.
        skip: layers that pruning left dense on purpose, which get none.

    Raises:
        UserError: some of the layers are matrices of experts, which are no layers of their own.
    """
    layers = pruned_layers(model, skip)
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if experts := [name for name in layers if name not in modules]:
        raise UserError(
            f"recovery.weights=lora: {experts[0]} is one matrix of a mixture's experts, which LoRA "
            "cannot adapt one by one; use recovery.weights=all"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=_SCALE * rank,
        target_modules=list(layers),
        fan_in_fan_out=any(isinstance(modules[name], Conv1D) for name in layers),
        bias="none",
    )
    config._register_custom_module({nn.Linear: _OnKeptWeights, Conv1D: _OnKeptWeights})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of names that transformers will drop
        return get_peft_model(model, config)
