"""A linear layer, however its weight is stored."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer, its weight seen as (out_features, in_features)."""

    name: str  # full name in the model
    module: nn.Module
    parameter: str = "weight"  # of the module, which holds the weight

    @property
    def transposed(self) -> bool:
        """Whether the module stores (in_features, out_features), as GPT-2's Conv1D does."""
        return isinstance(self.module, Conv1D)

    @property
    def stored(self) -> Tensor:
        """The weight as the module stores it, without gradient."""
        return self.part(self.module.get_parameter(self.parameter).detach())

    def part(self, whole: Tensor) -> Tensor:
        """This layer's part of a tensor that is laid out as its parameter is."""
        return whole

    @property
    def weight(self) -> Tensor:
        """W, (out_features, in_features), contiguous; not to be written to."""
        return self.stored.T.contiguous() if self.transposed else self.stored

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        rows, columns = self.stored.shape
        return (columns, rows) if self.transposed else (rows, columns)

    @torch.no_grad()
    def write(self, weight: Tensor) -> None:
        """Write `weight`, (out_features, in_features), into the module, cast to its dtype."""
        self.stored.copy_(weight.T if self.transposed else weight)

    @torch.no_grad()
    def reorder_rows(self, order: Tensor) -> None:
        """Put the outputs in another order, (out_features,): which comes where; with their bias."""
        order = order.to(self.stored.device)
        self.write(self.weight[order])
        bias = getattr(self.module, "bias", None)
        if isinstance(bias, Tensor):
            bias.copy_(bias[order])

    def reorder_columns(self, order: Tensor) -> None:
        """Put the inputs in another order, (in_features,)."""
        self.write(self.weight[:, order.to(self.stored.device)])


Layers = Mapping[str, LinearLayer]  # by name
