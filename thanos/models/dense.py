"""What stays dense in a block: by its nature, because the user says so, or because he must say so.

Routers and gates of one row choose who computes; a depthwise convolution is no matrix product. All
else that cannot be pruned as asked is reported in one line with the `model.skip` that leaves it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import nn

from thanos.errors import UserError


def is_convolution_by_channel(module: nn.Module) -> bool:
    """Whether every channel is filtered by itself, as the short convolutions of hybrid models."""
    return isinstance(module, nn.Conv1d) and module.groups == module.in_channels > 1


def is_skipped(name: str, skip: Collection[str]) -> bool:
    """Whether one of the patterns names the layer, by its full name or from the block on."""
    return any(matches(name, pattern) for pattern in skip)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern of `model.skip` is the layer's."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def refuse(
    faults: Mapping[str, str],
    blocks: Iterable[str],
    known: Collection[str],
    *,
    everywhere: bool = False,
) -> None:
    """Refuse all layers at once that cannot be pruned as asked.

    Args:
        faults: by the layer's full name, how the sentence that begins with it goes on.
        blocks: full names of all blocks, in their order.
        known: the patterns of `model.skip` that are set already.
        everywhere: what is wrong with a layer in one block is so in all blocks.

    Raises:
        UserError: there are any; the message holds the `model.skip` that leaves them dense.
    """
    if not faults:
        return
    (name, reason), *others = faults.items()
    more = f" (and {len(others)} more)" if others else ""
    patterns = ",".join((*known, *_patterns(faults, list(blocks), everywhere)))
    raise UserError(
        f"{name}{reason}{more}; to leave what cannot be pruned dense set model.skip=[{patterns}]"
    )


def calls_fault(calls: int) -> str:
    """What is wrong with a layer that is called so often in its block, unless it is once."""
    return " runs more than once in its block" if calls else " receives no input in its block"


class CalledWronglyError(UserError):
    """A layer is not called when its block runs, or more than once."""

    def __init__(self, layer: str, calls: int) -> None:
        self.faults = {layer: calls_fault(calls)}
        super().__init__(f"{layer}{calls_fault(calls)}; to leave it dense name it in model.skip")


def _patterns(names: Iterable[str], blocks: list[str], everywhere: bool) -> list[str]:
    """Patterns for `model.skip`: without a block's name where they hold for every block."""
    by_own: dict[str, set[str]] = {}  # blocks by the layer's name in them
    for name in names:
        block = next(b for b in blocks if name == b or name.startswith(f"{b}."))
        own = name.removeprefix(block).removeprefix(".")
        by_own.setdefault(re.sub(r"(?<=\.)\d+(?=\.)", "*", own), set()).add(block)
    patterns = []
    for own, found in by_own.items():
        if everywhere or len(found) > 1 or len(blocks) == 1:
            patterns.append(own)
        else:  # from the list's own name on: layers.3.mlp.down_proj
            patterns += [f"{'.'.join(b.split('.')[-2:])}.{own}".rstrip(".") for b in sorted(found)]
    return list(dict.fromkeys(patterns))
