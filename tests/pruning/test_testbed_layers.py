"""float32 against float64 on the layers of the testbed's trained models, calibrated as in conf/."""

from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import oracle
import pytest
import torch
from torch import Tensor

from thanos.config import RunBuilder, resolve
from thanos.models import find_blocks, linear_layers, prune_model
from thanos.opening import open_dense
from thanos.pruning import InputStatistics, PruningResult, prune_weight
from thanos.stages.calibrate import calibrate, read_windows

PATTERNS = ("structured:0.3", "2:4", "0.5")


class _Enough(Exception):  # noqa: N818
    """Ends the walk over a model early."""


@dataclass(frozen=True)
class Case:
    """A layer pruned in both precisions: statistics accumulated and weights pruned in each."""

    layer: str
    method: str
    pattern: str
    same_mask: float  # share of entries
    loss_difference: float  # relative


def cases(folder: Path, model: str, most_layers: int | None = None, *overrides: str) -> list[Case]:
    """All methods with an update on a model's layers; each block follows those pruned by Thanos."""
    run = RunBuilder().run(resolve([f"model={model}", "calibration=docstrings", *overrides]))
    spec = run.pruning
    calibrate(spec.calibration, run.place, folder / "calibration")
    found: list[tuple[str, str, float, float]] = []
    per_layer = 2 * len(PATTERNS)
    update = InputStatistics.update

    def update_twice(statistics: InputStatistics, x: Tensor, dense: Tensor | None) -> None:
        update(statistics, x, dense)
        if not hasattr(statistics, "single"):
            statistics.single = InputStatistics(statistics.in_features)
        update(statistics.single, x)

    def prune(weight: Tensor, double: InputStatistics) -> PruningResult:
        for method, pattern in product(("sparsegpt", "thanos"), PATTERNS):
            first, second = (
                prune_weight(weight, statistics, method, pattern, dtype=statistics.dtype)
                for statistics in (double.single, double)
            )
            same = float((first.mask == second.mask).double().mean())
            lost = [oracle.loss(weight, result.weight, double.gram) for result in (first, second)]
            found.append((method, pattern, same, abs(lost[0] / lost[1] - 1)))
        if most_layers and len(found) == most_layers * per_layer:
            raise _Enough
        return first

    opened = open_dense(spec.model, run.place).float()
    blocks = find_blocks(opened)
    names = [
        name
        for index, block in enumerate(blocks.modules)
        for name in linear_layers(block, blocks.name_of(index))
    ]
    with pytest.MonkeyPatch.context() as patch, suppress(_Enough):
        patch.setattr(InputStatistics, "update", update_twice)
        prune_model(
            opened,
            read_windows(folder / "calibration")[0],
            prune,
            statistics="gram",
            batch_size=run.place.calibration_windows(run.pruning.calibration.context),
            statistics_dtype=torch.float64,
        )
    return [Case(names[index // per_layer], *case) for index, case in enumerate(found)]


def check(found: list[Case]) -> None:
    """Same masks on at least 99.9% of entries, losses within 0.1%; prints the worst of each."""
    for case in found:
        assert case.same_mask >= 0.999, case
        assert case.loss_difference <= 1e-3, case
    for method, pattern in product(("sparsegpt", "thanos"), PATTERNS):
        these = [case for case in found if (case.method, case.pattern) == (method, pattern)]
        same = min(case.same_mask for case in these)
        difference = max(case.loss_difference for case in these)
        print(f"{len(these)} layers, {method} {pattern}: {same:.4%}, loss within {difference:.1e}")


def test_first_layers(tmp_path: Path) -> None:
    check(cases(tmp_path, "doc-llama", 4, "calibration.windows=16"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["doc-llama", "doc-opt"])
def test_all_layers(model: str, tmp_path: Path) -> None:
    check(cases(tmp_path, model))
