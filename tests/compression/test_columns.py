import pytest
import torch

from thanos.compression.columns import split_columns


def test_columns_that_no_row_reads_are_dead():
    weight = torch.tensor([[1.0, 0, 2, 0], [3, 0, 4, 0], [5, 0, 6, 0]])

    split = split_columns(weight)

    assert split.kept.tolist() == [0, 2]
    assert split.outliers.tolist() == []
    assert split.dead.tolist() == [1, 3]
    assert split.removed_share == 0.5


def test_an_outlier_row_reads_removed_columns():
    weight = torch.tensor([[1.0, 0, 2, 0], [3, 8, 4, 0], [5, 0, 6, 0]])

    split = split_columns(weight)

    assert split.kept.tolist() == [0, 2]
    assert split.outliers.tolist() == [1]
    assert split.outlier_columns.tolist() == [1]  # column 3 is dead even for the outlier row
    assert split.dead.tolist() == [3]
    assert split.removed_share == pytest.approx(1 - 7 / 12)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.6])
def test_removed_columns_are_found_whatever_the_share_of_outliers(alpha):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 30, generator=generator)
    removed = torch.randperm(30, generator=generator)[:9].sort().values
    outliers = torch.randperm(40, generator=generator)[: int(alpha * 40)].sort().values
    pruned = weight.clone()
    pruned[:, removed] = 0
    pruned[outliers] = weight[outliers]

    split = split_columns(pruned)

    assert split.kept.tolist() == sorted(set(range(30)) - set(removed.tolist()))
    assert split.outliers.tolist() == outliers.tolist()
    assert split.outlier_columns.tolist() == (removed.tolist() if alpha else [])


def test_a_dense_weight_keeps_everything():
    split = split_columns(torch.ones(3, 4))

    assert split.kept.tolist() == [0, 1, 2, 3]
    assert split.removed_share == 0


def test_an_unstructured_weight_has_next_to_nothing_to_remove():
    weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    weight[torch.rand(128, 128, generator=torch.Generator().manual_seed(1)) < 0.5] = 0

    assert split_columns(weight).removed_share < 0.01


def test_a_weight_of_zeros_needs_no_column():
    split = split_columns(torch.zeros(3, 4))

    assert len(split.kept) == len(split.outliers) == 0
    assert split.dead.tolist() == [0, 1, 2, 3]
