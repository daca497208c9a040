"""Layers small enough to be pruned on paper."""

import pytest
import torch
from torch import Tensor

from thanos.pruning import InputStatistics, PruningResult, prune_weight


def prune(W: list[list[float]], tokens: list[list[float]], *args, **options) -> PruningResult:
    """Prune W, given calibration tokens (one per row), in float64."""
    X = torch.tensor(tokens, dtype=torch.float64)
    statistics = InputStatistics(X.shape[1], dtype=torch.float64)
    statistics.update(X)
    weight = torch.tensor(W, dtype=torch.float64)
    return prune_weight(weight, statistics, *args, dtype=torch.float64, **options)


def identity(b: int, *scales: float) -> list[list[float]]:
    """Uncorrelated inputs with the given norms, 1 by default."""
    return torch.diag(torch.tensor(scales or [1.0] * b)).tolist()


def close(actual: Tensor, expected: list[list[float]]) -> bool:
    return torch.allclose(actual, torch.tensor(expected, dtype=actual.dtype), rtol=0, atol=1e-12)


def test_magnitude_removes_the_smallest_of_the_layer() -> None:
    result = prune([[1, -2, 3], [4, 5, -6]], identity(3), "magnitude", "0.5")
    assert result.weight.tolist() == [[0, 0, 0], [4, 5, -6]]
    assert result.mask.tolist() == [[True] * 3, [False] * 3]
    assert result.sparsity == 0.5
    assert result.relative_error == pytest.approx(14 / 91)
    assert result.damping is None


def test_wanda_weighs_by_input_norm_and_compares_within_rows() -> None:
    result = prune([[1, -2, 3, 4], [4, 5, -6, 7]], identity(4, 9, 1, 1, 1), "wanda", "0.5")
    assert result.weight.tolist() == [[1, 0, 0, 4], [4, 0, 0, 7]]


def test_groups_keep_n_of_m() -> None:
    W = [[1, 2, 3, 4, 8, 7, 6, 5]]
    assert prune(W, identity(8), "wanda", "2:4").weight.tolist() == [[0, 0, 3, 4, 8, 7, 0, 0]]
    assert prune(W, identity(8), "wanda", "1:4").weight.tolist() == [[0, 0, 0, 4, 8, 0, 0, 0]]
    assert prune(W, identity(8), "wanda", "1:2").weight.tolist() == [[0, 2, 0, 4, 8, 0, 6, 0]]


def test_ties_go_to_the_lowest_index() -> None:
    ones = [[1.0] * 4] * 2
    assert prune(ones, identity(4), "magnitude", "0.625").weight.tolist() == [
        [0, 0, 0, 0],
        [0, 1, 1, 1],
    ]
    assert prune(ones, identity(4), "wanda", "0.5").weight.tolist() == [[0, 0, 1, 1]] * 2
    assert prune(ones, identity(4), "wanda", "structured:0.5").weight.tolist() == [[0, 0, 1, 1]] * 2


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
def test_counts_are_free_of_floating_point_noise(method: str) -> None:
    """0.29 · 100 is 28.999999999999996 in floating point; 0.07 · 100 is 7.000000000000001."""
    W = torch.arange(1.0, 101).view(1, 100).tolist()
    assert int(prune(W, identity(100), method, "0.29").mask.sum()) == 29
    assert int(prune(W, identity(100), method, "structured:0.07").mask.sum()) == 7


@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_survivors_take_over_what_was_removed(method: str) -> None:
    """G = [[2, 1], [1, 2]]: without w₀ = 1 the best w₁ is 3 + 1 · G₀₁ / (G₁₁ + damping · 2)."""
    tokens = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    result = prune([[1, 3]], tokens, method, "0.5", damping=0.0)
    assert close(result.weight, [[0, 3.5]])
    assert result.relative_error == pytest.approx(1.5 / 26)  # 2 − 1²/2 of 2·1 + 2·3 + 2·9
    result = prune([[1, 3]], tokens, method, "0.5", damping=0.5)
    assert close(result.weight, [[0, 3 + 1 / 3]])
    assert result.damping == 0.5


def test_only_the_joint_update_moves_weights_on_the_left() -> None:
    """Removing w₁: SparseGPT has passed w₀ by then, Thanos moves it in the same block."""
    tokens = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    sequential = prune([[3, 1]], tokens, "sparsegpt", "0.5", metric="wanda", damping=0.0)
    assert close(sequential.weight, [[3, 0]])
    joint = prune([[3, 1]], tokens, "thanos", "0.5", damping=0.0)
    assert close(joint.weight, [[3.5, 0]])


def test_blocks_choose_on_updated_weights() -> None:
    """Half of four weights: the update of the first block lifts w₂ from 2 to 5 before the second.

    Inputs 0 and 2 are almost the same, so w₂ takes over the removed w₀; with one block the choice
    is made once and w₂ goes as well.
    """
    tokens = [[1.0, 0, 1, 0], [0, 1.0, 0, 0], [0, 0, 1e-3, 0], [0, 0, 0, 1.0]]
    W = [[1.5, 9, 2, 3]]
    one_block = prune(W, tokens, "thanos", "0.5", block_size=4, damping=0.0)
    assert one_block.mask.tolist() == [[True, False, True, False]]
    two_blocks = prune(W, tokens, "thanos", "0.5", block_size=2, damping=0.0)
    assert two_blocks.mask.tolist() == [[True, False, False, True]]


def test_outlier_rows_stay_dense_and_the_others_carry_the_sparsity() -> None:
    W = [[1, 2], [30, 40], [3, 4], [5, 6]]
    result = prune(W, identity(2), "magnitude", "0.5", outlier_fraction=0.25)
    assert result.weight.tolist() == [[0, 0], [30, 40], [0, 0], [5, 6]]
    assert result.sparsity == 0.5
    result = prune(W, identity(2), "wanda", "1:2", outlier_fraction=0.1)  # ⌈0.4⌉ = 1 row
    assert result.weight.tolist() == [[0, 2], [30, 40], [0, 4], [0, 6]]
    assert result.sparsity == 3 / 8


def test_outlier_rows_are_those_with_the_largest_output() -> None:
    """Opposite weights on equal inputs cancel: a large row, but no output."""
    W, tokens = [[5, -5], [1, 1]], [[1.0, 1.0]]
    options = {"outlier_fraction": 0.5, "pattern": "0.25"}
    exact = prune(W, tokens, "thanos", **options)
    assert exact.weight[1].tolist() == [1, 1]
    separable = prune(W, tokens, "thanos", outlier_score="separable", **options)
    assert separable.weight[0].tolist() == [5, -5]


def test_structured_removes_more_columns_where_rows_stay_dense() -> None:
    W = [[1, 2, 3, 4], [10, 20, 30, 40]]
    result = prune(W, identity(4), "thanos", "structured:0.25", outlier_fraction=0.5)
    assert result.weight.tolist() == [[0, 0, 3, 4], [10, 20, 30, 40]]
    assert result.sparsity == 0.25


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "thanos"])
def test_structured_can_take_every_column_of_the_other_rows(method: str) -> None:
    W = [[1, 2, 3, 4], [10, 20, 30, 40]]
    result = prune(W, identity(4), method, "structured:0.5", outlier_fraction=0.5)
    assert result.weight.tolist() == [[0, 0, 0, 0], [10, 20, 30, 40]]


def test_dead_inputs_are_removed_first() -> None:
    W, tokens = [[1, 9, 2], [3, 9, 4]], identity(3, 1, 0, 1)
    result = prune(W, tokens, "thanos", "0.5")
    assert result.weight.tolist() == [[0, 0, 2], [3, 0, 4]]
    assert result.mask.tolist() == [[True, True, False], [False, True, False]]


@pytest.mark.parametrize("refine_steps", [0, 2])
@pytest.mark.parametrize("method", ["sparsegpt", "thanos"])
def test_weights_of_dead_inputs_vanish_even_if_nothing_is_removed(
    method: str, refine_steps: int
) -> None:
    tokens = identity(3, 1, 0, 1)
    result = prune([[1, 9, 2], [3, 9, 4]], tokens, method, "0", refine_steps=refine_steps)
    assert result.weight.tolist() == [[1, 0, 2], [3, 0, 4]]
    assert not result.mask.any()
    assert result.relative_error == 0


def test_weights_of_dead_inputs_stay_without_an_update() -> None:
    result = prune([[1, 9]], identity(2, 1, 0), "wanda", "0", refine_steps=2)
    assert result.weight.tolist() == [[1, 9]]


def test_refinement_moves_the_weights_that_blocks_froze() -> None:
    """w₁ is removed in the second block; w₀ can only follow in the refinement."""
    tokens = [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    frozen = prune([[3, 1]], tokens, "thanos", "0.5", block_size=1, damping=0.0)
    assert close(frozen.weight, [[3, 0]])
    refined = prune([[3, 1]], tokens, "thanos", "0.5", block_size=1, damping=0.0, refine_steps=1)
    assert close(refined.weight, [[3.5, 0]])
