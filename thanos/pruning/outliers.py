"""Outlier rows: a layer's rows that stay dense, and the layer put together again."""

import torch
from torch import Tensor

from .patterns import ceil_count
from .quadratic_form import row_energies, separable_energies
from .statistics import InputStatistics


def pruned_rows(
    W: Tensor,
    statistics: InputStatistics | None,
    alpha: float,
    score: str,
    dtype: torch.dtype,
    budget: int,
) -> Tensor | None:
    """Indices of all rows but the ⌈αc⌉ with the largest h_i, ties by index; None for all."""
    outliers = ceil_count(alpha * len(W))
    if outliers == 0:
        return None
    assert statistics is not None
    if score == "exact":
        h = row_energies(W, statistics.gram.to(dtype), budget)
    else:
        h = separable_energies(W, statistics.squared_norms.to(dtype), budget)
    return h.argsort(descending=True, stable=True)[outliers:].sort().values


def rows_with_removals(mask: Tensor) -> Tensor | None:
    """Indices of the rows that a given mask does not leave dense; None for all."""
    pruned = mask.any(1)
    return None if bool(pruned.all()) else pruned.nonzero().squeeze(1)


def beside_outliers(values: Tensor, rows: Tensor | None, outliers: Tensor) -> Tensor:
    """The whole layer: `values` in the pruned rows, in the others those of `outliers`."""
    if rows is None:
        return values.contiguous()
    return outliers.index_copy(0, rows, values)
