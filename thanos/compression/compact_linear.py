"""A linear layer whose pruned input columns, and unused output rows, are physically gone."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class OutlierRows(nn.Module):
    """The second product: what a few rows read besides the columns that all rows read.

    Args:
        weight: (outlier rows, their further columns).
        rows: places among the computed rows.
        columns: places in the input.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, weight: Tensor, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.weight = _values(weight)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outlier rows) for x (..., in_features)."""
        return linear(x.index_select(-1, self.columns), self.weight)


class CompactLinear(nn.Module):
    """y = x[kept] Wᵀ + bias, plus a second small product that goes to the outlier rows only.

    Where fewer rows are computed than returned, the others are zero: a later layer that ignores
    them still finds its inputs where it expects them.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        weight: (computed rows, columns that every row reads).
        bias: (computed rows,), or none.
        outliers: the second product, if there is one.
        kept: places of the columns in the input.
        placed: places of the computed rows in the output.
    """

    kept: Tensor | None  # None where every row reads all of the input
    placed: Tensor | None  # None where the output is the computed rows

    def __init__(
        self,
        in_features: int,
        out_features: int,
        weight: Tensor,
        bias: Tensor | None,
        outliers: OutlierRows | None,
        kept: Tensor,
        placed: Tensor,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = _values(weight)
        self.bias = None if bias is None else _values(bias)
        self.outliers = outliers
        self.register_buffer("kept", kept if len(kept) < in_features else None)
        self.register_buffer("placed", placed if len(placed) < out_features else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for x (..., in_features)."""
        kept = x if self.kept is None else x.index_select(-1, self.kept)
        y = linear(kept, self.weight, self.bias)  # (..., rows)
        if self.outliers is not None:
            y.index_add_(-1, self.outliers.rows, self.outliers(x))
        if self.placed is None:
            return y
        return y.new_zeros(*y.shape[:-1], self.out_features).index_copy_(-1, self.placed, y)


@torch.no_grad()
def compact_linear(
    weight: Tensor,
    bias: Tensor | None,
    *,
    kept: Tensor,
    outliers: Tensor,
    outlier_columns: Tensor,
    rows: Tensor | None = None,
    inputs: Tensor | None = None,
    narrow: bool = False,
) -> CompactLinear:
    """Build a `CompactLinear` from a zero-filled weight.

    Args:
        weight: (c, b), zero outside what the indices below name.
        bias: (c,), or none.
        kept: columns that every row reads.
        outliers: rows that read `outlier_columns` too.
        outlier_columns: columns that are not in `kept`.
        rows: rows to compute, ascending; by default all.
        inputs: the columns that the input still has, ascending; by default all.
        narrow: return the computed rows only, instead of zeros in the others' places.
    """
    c, b = weight.shape
    if rows is None:
        rows = torch.arange(c, device=weight.device)
    outliers = outliers[torch.isin(outliers, rows)]
    further = None
    if len(outliers) and len(outlier_columns):
        further = OutlierRows(
            weight[outliers][:, outlier_columns],
            torch.searchsorted(rows, outliers),
            _renumbered(outlier_columns, inputs),
        )
    return CompactLinear(
        b if inputs is None else len(inputs),
        len(rows) if narrow else c,
        weight[rows][:, kept],
        None if bias is None else bias[rows],
        further,
        _renumbered(kept, inputs),
        rows,
    )


def _renumbered(columns: Tensor, inputs: Tensor | None) -> Tensor:
    """Places of `columns` among the columns that the input still has."""
    return columns if inputs is None else torch.searchsorted(inputs, columns)


def _values(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=False)
