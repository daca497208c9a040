"""Read off a pruned weight which input columns were removed, and from which rows."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColumnSplit:
    """A weight W (c, b) as two products: W[:, kept], and W[outliers][:, outlier_columns].

    Every entry outside the two is zero. A column in neither is dead: no row reads it.
    """

    shape: tuple[int, int]
    kept: Tensor  # columns that ordinary rows read, ascending
    outliers: Tensor  # rows that read removed columns too, ascending
    outlier_columns: Tensor  # the removed columns that they read, ascending

    @property
    def dead(self) -> Tensor:
        """The columns that no row reads, ascending."""
        unread = torch.ones(self.shape[1], dtype=torch.bool, device=self.kept.device)
        unread[self.kept] = False
        unread[self.outlier_columns] = False
        return unread.nonzero().flatten()

    @property
    def removed_share(self) -> float:
        """Share of the weights that the two products do without."""
        c, b = self.shape
        stored = c * len(self.kept) + len(self.outliers) * len(self.outlier_columns)
        return 1 - stored / (c * b)


def split_columns(weight: Tensor) -> ColumnSplit:
    """Split a weight (c, b) so that as many zeros as possible need not be stored.

    Of the sets made of the k columns with the most zeros, the one is removed that saves most: k
    times the rows that are zero in all k. Rows that are not become outliers. For a structured
    pattern this finds exactly the removed columns, whatever the share of outlier rows.
    """
    c, b = weight.shape
    nonzero = weight != 0  # (c, b)
    order = nonzero.sum(0).argsort(stable=True)  # columns with most zeros first
    # A row is zero in the first k ordered columns as long as k ≤ its first non-zero one.
    first = torch.where(nonzero.any(1), nonzero[:, order].byte().argmax(1), b)  # (c,)
    rows_with_first = torch.bincount(first, minlength=b + 1)
    zero_rows = rows_with_first.flip(0).cumsum(0).flip(0)  # [k]: rows with first ≥ k
    k = int((zero_rows * torch.arange(b + 1, device=weight.device)).argmax())
    removed = order[:k]
    outliers = (first < k).nonzero().flatten()
    read = nonzero[outliers][:, removed].any(0)
    return ColumnSplit((c, b), order[k:].sort().values, outliers, removed[read].sort().values)
