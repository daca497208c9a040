"""A linear layer whose pruned input columns, and unused output rows, are physically gone."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@dataclass(frozen=True)
class CompactShape:
    """The sizes of a `CompactLinear`; with them an empty one is made before loading."""

    in_features: int  # width of the input that it is given
    out_features: int  # width of the output that it returns
    rows: int  # output rows that are computed
    columns: int  # input columns that every row reads
    outlier_rows: int  # rows that read further columns
    outlier_columns: int
    bias: bool

    def to_json(self) -> dict[str, int | bool]:
        """As plain values."""
        return asdict(self)


class OutlierRows(nn.Module):
    """The second product: what a few rows read besides the columns that all rows read."""

    rows: Tensor  # places among the computed rows
    columns: Tensor  # places in the input

    def __init__(self, shape: CompactShape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = _values((shape.outlier_rows, shape.outlier_columns), dtype, device)
        self.register_buffer("rows", _index(shape.outlier_rows, device))
        self.register_buffer("columns", _index(shape.outlier_columns, device))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outlier rows) for x (..., in_features)."""
        return linear(x.index_select(-1, self.columns), self.weight)


class CompactLinear(nn.Module):
    """y = x[kept] Wᵀ + bias, plus a second small product that goes to the outlier rows only.

    Where fewer rows are computed than returned, the others are zero: a later layer that ignores
    them still finds its inputs where it expects them.
    """

    kept: Tensor | None  # places in the input; None where every row reads all of it
    placed: Tensor | None  # places in the output; None where it is the computed rows

    def __init__(self, shape: CompactShape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.shape = shape
        self.in_features, self.out_features = shape.in_features, shape.out_features
        self.weight = _values((shape.rows, shape.columns), dtype, device)
        self.bias = _values((shape.rows,), dtype, device) if shape.bias else None
        self.outliers = OutlierRows(shape, dtype, device) if shape.outlier_rows else None
        gathers, places = shape.columns < shape.in_features, shape.rows < shape.out_features
        self.register_buffer("kept", _index(shape.columns, device) if gathers else None)
        self.register_buffer("placed", _index(shape.rows, device) if places else None)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for x (..., in_features)."""
        kept = x if self.kept is None else x.index_select(-1, self.kept)
        y = linear(kept, self.weight, self.bias)  # (..., rows)
        if self.outliers is not None:
            y.index_add_(-1, self.outliers.rows, self.outliers(x))
        if self.placed is None:
            return y
        return y.new_zeros(*y.shape[:-1], self.out_features).index_copy_(-1, self.placed, y)

    def extra_repr(self) -> str:
        """What print(model) shows of it."""
        s = self.shape
        return (
            f"{s.in_features} -> {s.out_features}, weight {s.rows} x {s.columns}, "
            f"outliers {s.outlier_rows} x {s.outlier_columns}, bias={s.bias}"
        )


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
    if len(outliers) == 0 or len(outlier_columns) == 0:
        outliers, outlier_columns = outliers[:0], outlier_columns[:0]
    module = CompactLinear(
        CompactShape(
            in_features=b if inputs is None else len(inputs),
            out_features=len(rows) if narrow else c,
            rows=len(rows),
            columns=len(kept),
            outlier_rows=len(outliers),
            outlier_columns=len(outlier_columns),
            bias=bias is not None,
        ),
        weight.dtype,
        weight.device,
    )
    values = {
        "weight": weight[rows][:, kept],
        "bias": None if bias is None else bias[rows],
        "outliers.weight": weight[outliers][:, outlier_columns],
        "outliers.rows": torch.searchsorted(rows, outliers),
        "outliers.columns": _renumbered(outlier_columns, inputs),
        "kept": _renumbered(kept, inputs),
        "placed": rows,
    }
    for name, held in module.state_dict().items():
        held.copy_(values[name])
    return module


def _renumbered(columns: Tensor, inputs: Tensor | None) -> Tensor:
    """Places of `columns` among the columns that the input still has."""
    return columns if inputs is None else torch.searchsorted(inputs, columns)


def _values(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> nn.Parameter:
    return nn.Parameter(torch.empty(size, dtype=dtype, device=device), requires_grad=False)


def _index(size: int, device: torch.device) -> Tensor:
    return torch.zeros(size, dtype=torch.int64, device=device)
