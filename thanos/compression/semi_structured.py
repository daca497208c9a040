"""2:4 weights on the kernels that GPUs have for them."""

import torch
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured
from transformers import PreTrainedModel

_DTYPES = (torch.float16, torch.bfloat16)
_ROWS, _COLUMNS = 32, 64  # sizes must be multiples of these, whichever library does the product


@torch.no_grad()
def use_semi_structured(model: PreTrainedModel) -> list[str]:
    """Store every weight that is 2:4 as a semi-structured tensor, in place; return their names.

    A layer with dense outlier rows, of another dtype than half precision or of a size that the
    kernels do not take stays as it is.
    """
    changed = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and _fits(module.weight) and is_two_of_four(module.weight):
            sparse = to_sparse_semi_structured(module.weight.detach())
            module.weight = nn.Parameter(sparse, requires_grad=False)
            changed.append(name)
    return changed


def is_two_of_four(weight: Tensor) -> bool:
    """Whether every four consecutive inputs of every row have at most two non-zero weights."""
    c, b = weight.shape
    return b % 4 == 0 and bool(((weight != 0).view(c, -1, 4).sum(-1) <= 2).all())


def is_semi_structured(weight: Tensor) -> bool:
    """Whether a weight is stored as a semi-structured tensor."""
    return isinstance(weight, SparseSemiStructuredTensor)


def _fits(weight: Tensor) -> bool:
    c, b = weight.shape
    return weight.dtype in _DTYPES and c % _ROWS == 0 and b % _COLUMNS == 0
