"""A model without weights: its structure, and the few buffers that no checkpoint holds."""

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from .quiet import quiet


def build_skeleton(
    config: PreTrainedConfig, dtype: torch.dtype, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return the model of a configuration with every parameter on the meta device.

    Buffers that checkpoints leave out (rotary frequencies, embedding scales) are computed as
    transformers computes them when it opens the model.
    """
    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, trust_remote_code=trust_remote_code
        )
    for name, buffer in model.named_non_persistent_buffers():
        set_tensor(model, name, torch.empty_like(buffer, device="cpu"))
    # What from_pretrained does for all that its checkpoint lacks; parameters stay on meta, where
    # initialising them costs nothing.
    for module in model.modules():
        module._is_hf_initialized = False
    model.initialize_weights()
    return model.eval()


def set_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Put `value` in the place of the parameter or buffer `name` of a module or a part of it."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
