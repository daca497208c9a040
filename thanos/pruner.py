"""A spec's pruning, carried out on the blocks of a model: by the stage, and by one call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from .errors import UserError
from .identity import Place, PruningSpec
from .layer_patterns import allocated
from .models import (
    BlockSource,
    LayerRecord,
    PruneLayer,
    StreamedBlocks,
    linear_layers,
    prune_model,
)
from .models.dense import refuse
from .models.given_masks import own_patterns
from .models.reconstruction import Reconstruction
from .models.sequential import Statistics
from .models.source import PrunedBlocks
from .opening import dense_folder
from .pruning import (
    HeadsAndNeurons,
    InputStatistics,
    Pattern,
    PruningError,
    PruningResult,
    check_shape,
    prune_weight,
    required_statistics,
)


def check_layers(spec: PruningSpec, model: BlockSource) -> None:
    """Check that every layer can have the pattern, before the first one is pruned.

    Raises:
        UserError: some cannot; the message names them.
    """
    faults, fitting = {}, 0
    for block, block_name in zip(model.blocks.modules, model.blocks.names, strict=True):
        for name, layer in linear_layers(block, block_name, spec.skip).items():
            try:
                check_shape(*layer.shape, spec.pattern, spec.outlier_fraction)
                fitting += 1
            except PruningError as error:
                faults[name] = f": {error}"
    if faults and not fitting:  # leaving all of them dense is no way out
        raise UserError("".join(next(iter(faults.items()))))
    refuse(faults, model.blocks.names, spec.skip)


def layer_pruner(
    spec: PruningSpec, memory_budget: int | None, storage_dtype: torch.dtype
) -> Callable[[torch.Tensor, InputStatistics | None], PruningResult]:
    """The pruning of one layer as a function of its weight and input statistics.

    The result is rounded to what the checkpoint stores, whatever precision the blocks run in, so
    that later blocks are calibrated on the very weights that are written.
    """
    options: dict[str, Any] = {
        "block_size": spec.block_size,
        "outlier_fraction": spec.outlier_fraction,
        "refine_steps": spec.refine_steps,
        "alternation": spec.alternation,
        "correction": spec.correction,
        "measure_error": spec.layer_errors,
    }
    for key in ("damping", "outlier_score"):  # used by some methods only
        if (value := getattr(spec, key)) is not None:
            options[key] = value

    def prune_layer(
        weight: torch.Tensor,
        statistics: InputStatistics | None,
        pattern: Pattern = spec.pattern,
        **given: Any,
    ) -> PruningResult:
        return prune_weight(
            weight.to(storage_dtype),
            statistics,
            spec.method,
            pattern,
            dtype=getattr(torch, spec.precision),
            memory_budget=memory_budget,
            **options,
            **given,
        )

    return prune_layer


def data_free_pruner(
    spec: PruningSpec, needed: Statistics, storage_dtype: torch.dtype
) -> PruneLayer | None:
    """How experts that saw too few tokens are pruned; None if that is an error.

    Args:
        spec: of the pruned model.
        needed: the statistics that its method needs; without any, no expert saw too few.
        storage_dtype: what the checkpoint stores.
    """
    if needed != "none" and spec.rare_experts == "error":
        return None

    def prune_layer(
        weight: torch.Tensor,
        _: InputStatistics | None,
        pattern: Pattern = spec.pattern,
        **given: Any,
    ) -> PruningResult:
        # Outlier rows are chosen by the inputs, so there are none.
        return prune_weight(weight.to(storage_dtype), None, "magnitude", pattern, **given)

    return prune_layer


def prune_blocks(
    spec: PruningSpec,
    place: Place,
    source: PrunedBlocks,
    windows: torch.Tensor | None,
    dense: BlockSource,
    *,
    device: torch.device,
    storage_dtype: torch.dtype,
    done: Sequence[Sequence[LayerRecord]] = (),
    hidden: list[torch.Tensor] | None = None,
    dense_hidden: list[torch.Tensor] | None = None,
) -> list[LayerRecord]:
    """Prune a model's blocks, streamed or loaded, as a spec says; see `prune_model`.

    Args:
        spec: of the pruned model; its model is wherever `source` has it from.
        place: where it is computed.
        source: of the blocks.
        windows: (n, T) token ids; None if the spec has no calibration.
        dense: another source of the same blocks, which keeps none, or the same if it keeps none.
        device: where blocks run and are pruned.
        storage_dtype: what pruned weights are rounded to.
        done: records of the first blocks, which the source hands out pruned.
        hidden: where hidden states are kept.
        dense_hidden: where those of the dense model are kept, if the spec has two streams.
    """
    needed = required_statistics(
        *(spec.method, spec.outlier_fraction, spec.refine_steps),
        *(spec.outlier_score, spec.correction),
    )
    prune_layer = layer_pruner(spec, place.memory_budget, storage_dtype)
    masks = _masks(spec, place, source)
    patterns: Mapping[str, Pattern] | None = None
    if len(done) < len(source.blocks):
        if masks is not None:
            patterns = own_patterns(masks, spec.pattern, spec.skip)
        elif spec.allocation != "uniform" and windows is not None:
            patterns = allocated(spec, place, dense, windows, device, hidden)
    return prune_model(
        source,
        windows,
        prune_layer,
        statistics="gram" if spec.layer_errors else needed,
        batch_size=spec.reconstruction_batch or _batch(place, windows),
        device=device,
        statistics_dtype=getattr(torch, spec.precision),
        skip=spec.skip,
        data_free=data_free_pruner(spec, needed, storage_dtype),
        order="sublayer" if spec.order == "sublayer" else "block",
        correction=spec.correction > 0,
        masks=masks,
        patterns=patterns,
        units=isinstance(spec.pattern, HeadsAndNeurons),
        permutation=spec.channel_permutation,
        reconstruction=_reconstruction(spec, storage_dtype),
        done=done,
        hidden=hidden,
        dense_hidden=dense_hidden,
        hidden_budget=place.hidden_budget,
    )


def _batch(place: Place, windows: torch.Tensor | None) -> int:
    return place.calibration_windows(0 if windows is None else windows.shape[1])


def _reconstruction(spec: PruningSpec, storage_dtype: torch.dtype) -> Reconstruction | None:
    if not spec.reconstruction_steps or spec.calibration is None:
        return None
    assert spec.reconstruction_rate is not None
    seed = spec.calibration.seed
    return Reconstruction(
        spec.reconstruction_steps,
        spec.reconstruction_rate,
        seed,
        storage_dtype,
        getattr(torch, spec.reconstruction_precision),
    )


def _masks(spec: PruningSpec, place: Place, source: BlockSource) -> StreamedBlocks | None:
    """The pruned model whose zeros are removed.

    Raises:
        UserError: its layers are not those of the model to prune.
    """
    if spec.mask is None:
        return None
    masks = StreamedBlocks(dense_folder(spec.mask, place))
    layers, others = (_shapes(each, spec.skip) for each in (source, masks))
    if different := sorted(layers.items() ^ others.items()):
        raise UserError(
            f"the mask in {spec.mask.path} is of another model: layer {different[0][0]} is not the "
            "same in both"
        )
    return masks


def _shapes(model: BlockSource, skip: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    return {
        name: layer.shape
        for index, block in enumerate(model.blocks.modules)
        for name, layer in linear_layers(block, model.blocks.name_of(index), skip).items()
    }


def layer_row(layer: LayerRecord) -> dict[str, Any]:
    """What `pruning.json` says of a layer."""
    row = asdict(layer)
    return {"layer": row.pop("name"), **row}


def summary(layers: list[LayerRecord]) -> dict[str, float | None]:
    """What `pruning.json` says of all layers: sparsity, and mean relative error where known."""
    sizes = [layer.shape[0] * layer.shape[1] for layer in layers]
    zeros = sum(size * layer.sparsity for size, layer in zip(sizes, layers, strict=True))
    errors = [layer.relative_error for layer in layers if layer.relative_error is not None]
    return {
        "sparsity": zeros / sum(sizes),
        "relative_error": sum(errors) / len(errors) if len(errors) == len(layers) else None,
    }
