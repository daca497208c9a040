"""Make a structured model as small as it is: remove the columns that were pruned, and the rows of
earlier layers that nothing reads any more."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thanos.errors import UserError
from thanos.models import LinearLayer, find_blocks, linear_layers
from thanos.models.experts import has_experts
from thanos.models.replay import record_probe

from .columns import ColumnSplit, split_columns
from .compact_linear import compact_linear
from .tracing import Link, Run, find_links, is_unused

# Share of a layer's weights, or rows, below which moving numbers costs more than it saves:
# gathering the inputs of a 1024 x 1024 product takes 3 to 4% of its time on a CPU.
_WORTH_MOVING = 0.04
# Largest difference in a block's output, relative to its largest value: sums in another order.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_TOLERANCE_HALF = 2e-2


@dataclass(frozen=True)
class _Cut:
    """What a layer loses beyond the columns of its own pruning."""

    rows: Tensor | None = None  # rows that stay
    narrow: bool = False  # whether its output loses the others' places too
    inputs: Tensor | None = None  # channels that its input still has


@torch.no_grad()
def compact_model(model: PreTrainedModel, skip: Collection[str] = ()) -> list[str]:
    """Replace the layers of a structured model by `CompactLinear`s, in place.

    What the model computes stays the same but for the order of sums. A layer without removed
    columns, such as one of an unstructured model, stays as it is.

    Args:
        model: with zero-filled weights, on the device where it is to be used.
        skip: names or patterns of layers that were left dense, see `thanos.models.linear_layers`.

    Returns:
        The full names of the layers that were replaced.

    Raises:
        UserError: the model is a mixture of experts, its blocks cannot be run, or a compact one
            does not do the same.
    """
    blocks = find_blocks(model)
    if any(has_experts(module) for module in blocks.modules.modules()):
        raise UserError(
            f"{type(model).__name__} is a mixture of experts, which has no compact form yet; "
            "its checkpoint can still be packed"
        )
    recording = record_probe(model, blocks)
    known_links: dict[tuple, list[Link]] = {}  # blocks of the same shape have the same links
    replaced = []
    for index, block in enumerate(blocks.modules):
        name = blocks.name_of(index)
        layers = {
            full.removeprefix(f"{name}."): layer
            for full, layer in linear_layers(block, name, skip).items()
        }
        (run,) = recording.passes(index, block, model.device)
        changed = _compact_block(block, name, layers, run, known_links)
        replaced += [f"{name}.{key}" for key in changed]
    return replaced


def _compact_block(
    block: nn.Module,
    name: str,
    layers: Mapping[str, LinearLayer],
    run: Run,
    known_links: dict[tuple, list[Link]],
) -> list[str]:
    """Replace a block's layers and return their names within it."""
    splits = {key: split_columns(layer.weight) for key, layer in layers.items()}
    wanted = {key for key, split in splits.items() if split.removed_share >= _WORTH_MOVING}
    if not wanted:
        return []
    shapes = (type(block), *((key, layer.shape) for key, layer in layers.items()))
    if shapes not in known_links:
        known_links[shapes] = find_links(run, layers)
    cuts = _find_cuts(run, layers, splits, known_links[shapes])
    changed = [key for key in layers if key in wanted or key in cuts]
    expected = run()
    for key in changed:
        _replace(block, key, layers[key], splits[key], cuts.get(key, _Cut()))
    _check_same(name, run(), expected)
    return changed


def _find_cuts(
    run: Run,
    layers: Mapping[str, LinearLayer],
    splits: Mapping[str, ColumnSplit],
    links: list[Link],
) -> dict[str, _Cut]:
    """Which rows go because the columns that read them are gone."""
    cuts: dict[str, _Cut] = {}
    for consumer, split in splits.items():
        feeding = [link for link in links if link.consumer == consumer]
        dead = split.dead
        if len(dead) == 0 or not feeding:
            continue
        alive = _others(dead, split.shape[1])
        if all(link.pointwise and link.producer not in cuts for link in feeding) and all(
            is_unused(run, layers[link.producer], dead) for link in feeding
        ):
            for link in feeding:
                cuts[link.producer] = _Cut(rows=alive, narrow=True)
            cuts[consumer] = replace(cuts.get(consumer, _Cut()), inputs=alive)
            continue
        for link in feeding:
            c = layers[link.producer].shape[0]
            rows = link.rows_read_by(alive)
            unread = _others(rows, c)
            if (
                len(unread) >= _WORTH_MOVING * c
                and link.producer not in cuts
                and is_unused(run, layers[link.producer], unread)
            ):
                cuts[link.producer] = _Cut(rows=rows)
    return cuts


def _replace(
    block: nn.Module, name: str, layer: LinearLayer, split: ColumnSplit, cut: _Cut
) -> None:
    module = compact_linear(
        layer.weight,
        getattr(layer.module, "bias", None),
        kept=split.kept,
        outliers=split.outliers,
        outlier_columns=split.outlier_columns,
        rows=cut.rows,
        inputs=cut.inputs,
        narrow=cut.narrow,
    )
    parent, _, child = name.rpartition(".")
    setattr(block.get_submodule(parent), child, module.eval())


def _check_same(name: str, output: Tensor, expected: Tensor) -> None:
    tolerance = _TOLERANCE.get(output.dtype, _TOLERANCE_HALF) * float(expected.abs().max())
    difference = float((output - expected).abs().max())
    if not difference <= tolerance:
        raise UserError(
            f"{name}: its compact form gives other outputs (by {difference:.3g}); "
            "this architecture cannot be made compact"
        )


def _others(indices: Tensor, count: int) -> Tensor:
    """The numbers below `count` that are not among `indices`, ascending."""
    absent = torch.ones(count, dtype=torch.bool, device=indices.device)
    absent[indices] = False
    return absent.nonzero().flatten()
