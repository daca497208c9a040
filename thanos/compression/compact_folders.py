"""Write a pruned checkpoint as a model with fewer heads and neurons, a folder as any other."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from thanos.artifacts import atomic_folder, write_manifest
from thanos.errors import UserError
from thanos.models import StreamedBlocks, copy_checkpoint, logits_by_blocks
from thanos.models.location import weight_files
from thanos.models.replay import probe_tokens
from thanos.models.safetensors_layout import read_layout
from thanos.models.shards import stored_tensors

from .folders import check_checkpoint
from .narrow import DTYPE, Narrowing, find_narrowing
from .widths import changed_values

# Largest difference of a logit, relative to the largest logit but at least 1.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Narrowed:
    """What became of a checkpoint.

    Attributes:
        changes: keys of its configuration.
        gone: of each layer within its block that lost columns, how many in every block.
        remaining: of each layer within its block how many columns, in all blocks, are zero and
            stay, because the configuration has no number for them.
        bytes: of all tensors, before and after.
        parameters: before and after.
        logits_difference: largest, for random tokens, in float32.
    """

    changes: dict[str, Any]
    gone: dict[str, int]
    remaining: dict[str, int]
    bytes: tuple[int, int]
    parameters: tuple[int, int]
    logits_difference: float


def narrow_folder(source: Path, target: Path) -> Narrowed:
    """Write the model in `source` without what was pruned, as far as its configuration can say so.

    One block is in memory at a time. Tokenizer, templates and licences are carried over.

    Args:
        source: a pruned checkpoint.
        target: the folder to write, which must not exist.

    Raises:
        UserError: nothing can go, the model is none that has a narrow form, a file is damaged, or
            the narrow model does not give the same logits.
    """
    check_checkpoint(source, target)
    narrowing = find_narrowing(StreamedBlocks(source, dtype=DTYPE))
    if not narrowing.widths:
        raise UserError(
            f"{source}: nothing was removed that its configuration has a number for"
            f"{_hint(narrowing.remaining())}; --indices writes a form that leaves out columns, "
            "and `thanos pack` one that leaves out zeros"
        )
    with atomic_folder(target) as temporary:
        blocks = temporary / ".blocks"
        blocks.mkdir()
        for index in range(len(narrowing.source.blocks)):
            left = narrowing.source.stored_as(narrowing.weights(index))
            save_file(left, blocks / f"{index}.safetensors")
        cut = {n: t for file in blocks.iterdir() for n, t in read_layout(file).items()}
        changed = partial(changed_values, narrowing.source.config, changes=narrowing.changes())
        copy_checkpoint(source, cut, temporary, changed)
        shutil.rmtree(blocks)
        narrowed = _compared(source, temporary, narrowing)
        write_manifest(temporary, {"compact": {"changes": narrowed.changes, "gone": narrowed.gone}})
    return narrowed


def _compared(source: Path, target: Path, narrowing: Narrowing) -> Narrowed:
    """What became of the checkpoint in `source`, whose narrow form is in `target`."""
    before, after = (stored_tensors(weight_files(folder)).values() for folder in (source, target))
    expected, found = _logits(source), _logits(target)
    difference = float((found - expected).abs().max())
    if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"{source}: without what was pruned the model gives other logits (by "
            f"{difference:.3g}); this architecture cannot be made narrow"
        )
    return Narrowed(
        narrowing.changes(),
        {width.layer: width.unit * width.count for width in narrowing.widths},
        narrowing.remaining(),
        (sum(t.bytes for t in before), sum(t.bytes for t in after)),
        (sum(t.elements for t in before), sum(t.elements for t in after)),
        difference,
    )


def _logits(folder: Path) -> Tensor:
    source = StreamedBlocks(folder, dtype=DTYPE)
    tokens = probe_tokens(source.model)
    return torch.cat([part for row in logits_by_blocks(source, tokens, 1, "cpu") for part in row])


def _hint(remaining: dict[str, int]) -> str:
    if not remaining:
        return ", and no column of a layer is zero"
    layer, count = max(remaining.items(), key=lambda item: item[1])
    return f" (of {layer} {count:,} columns are zero)"
