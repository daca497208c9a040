"""Sparsities of its own for every layer, by what all of them are like in the dense model."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from .errors import UserError
from .identity import Place, PruningSpec
from .models import BlockSource
from .models.experts import is_rare
from .models.linear import Layers, LinearLayer
from .models.survey import Outputs, error_of, survey
from .pruning import InputStatistics, Pattern, PruningError, SemiStructured, prune_weight
from .pruning.allocation import (
    allocate,
    allocate_groups,
    kept_for_errors,
    kept_for_outliers,
    outlier_share,
    unit_sizes,
)

logger = logging.getLogger(__name__)

# On so many calibration tokens, and so well, layers are pruned to see what that does to a block.
_TOKENS_FOR_ERRORS, _STEPS_FOR_ERRORS = 4096, 4


def allocated(
    spec: PruningSpec,
    place: Place,
    dense: BlockSource,
    windows: torch.Tensor,
    device: torch.device,
    hidden: list[torch.Tensor] | None = None,
) -> Mapping[str, Pattern]:
    """The pattern of every layer of a model that loses as much as its spec says.

    Args:
        spec: of the pruned model, with an allocation.
        place: where it is computed.
        dense: its blocks; nothing is kept of them.
        windows: (n, T) token ids.
        device: where blocks run.
        hidden: an empty list, which is so again afterwards: where hidden states are kept meanwhile.

    Raises:
        UserError: a layer cannot be pruned; the message names it.
    """
    assert spec.allocation_spread is not None
    by_layer, by_error = spec.allocation_unit == "layer", spec.allocation == "error"
    sizes: dict[str, int] = {}
    unit_of: dict[str, str] = {}

    def measure(
        layers: Layers, seen: Mapping[str, InputStatistics], outputs: Outputs
    ) -> dict[str, float]:
        units: dict[str, dict[str, LinearLayer]] = {}
        firsts: dict[tuple[int, str], str] = {}  # of what lies in one parameter, as experts do
        for name, layer in layers.items():
            sizes[name] = layer.shape[0] * layer.shape[1]
            first = firsts.setdefault((id(layer.module), layer.parameter), name)
            unit_of[name] = first if by_layer else next(iter(layers))
            units.setdefault(unit_of[name], {})[name] = layer
        if by_error:
            before = list(outputs())
            return {
                unit: error_of(
                    its, partial(_prune_roughly, its, seen, spec, place), outputs, before
                )
                for unit, its in units.items()
            }
        return {
            unit: outlier_share(
                (layer.weight, seen[name].squared_norms) for name, layer in its.items()
            )
            for unit, its in units.items()
        }

    if by_error:
        windows = windows[: -(-_TOKENS_FOR_ERRORS // windows.shape[1])]
    measures = survey(
        dense,
        windows,
        measure,
        gram=by_error,
        batch_size=place.calibration_windows(windows.shape[1]),
        device=device,
        dtype=getattr(torch, spec.precision),
        skip=spec.skip,
        hidden=hidden,
    )
    if hidden is not None:
        hidden.clear()
    if by_error:
        kept = kept_for_errors(measures, unit_sizes(sizes, unit_of), spec.allocation_spread)
    else:
        kept = kept_for_outliers(measures, spec.allocation_spread)
    if isinstance(spec.pattern, SemiStructured):
        mixed = allocate_groups(sizes, unit_of, kept, spec.pattern)
        if set(mixed.values()) == {spec.pattern}:
            logger.warning(
                "every layer keeps %s: no %s differs from the others by a step of 1/%d; "
                "a larger m, allocation_spread or allocation_unit=layer makes a difference",
                *(spec.pattern, spec.allocation_unit, spec.pattern.m),
            )
        return mixed
    return allocate(sizes, unit_of, kept, spec.pattern.sparsity)


def _prune_roughly(
    layers: Layers, seen: Mapping[str, InputStatistics], spec: PruningSpec, place: Place
) -> None:
    """Wanda's mask and a few steps towards its best weights.

    Raises:
        UserError: a layer cannot be pruned; the message names it.
    """
    options: dict[str, Any] = {
        "dtype": getattr(torch, spec.precision),
        "memory_budget": place.memory_budget,
    }
    refined: dict[str, Any] = {**options, "refine_steps": _STEPS_FOR_ERRORS}
    for name, layer in layers.items():
        weight, inputs = layer.weight, seen[name]
        try:
            if is_rare(layer, inputs):
                result = prune_weight(weight, None, "magnitude", spec.pattern, **options)
            else:
                result = prune_weight(weight, inputs, "wanda", spec.pattern, **refined)
        except PruningError as error:
            raise UserError(f"{name}: {error}") from error
        layer.write(result.weight)
