"""What the layers of a block get in the dense model, for the same tokens."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .blocks import linear_layers
from .linear import Layers
from .replay import Recording
from .watching import apart, end_after, sharing, until_seen, watch, watch_experts

# What layers, or modules of experts, get in a batch, by their names.
Inputs = dict[str, Any]


class DenseTwin:
    """A block as it is in the dense model, beside the one that is pruned.

    The dense model's hidden states go on behind it in the run that shows what its layers get, if
    one is enough: where all layers are calibrated together, or where there is room to keep it.

    Args:
        index: of the block.
        name: of the block.
        block: it, of which a copy is kept.
        states: the dense model's before it.
        device: where it runs.
        room: bytes on the host that may be kept.
    """

    def __init__(
        self,
        index: int,
        name: str,
        block: nn.Module,
        states: Recording,
        device: torch.device | str,
        room: int,
    ) -> None:
        block = copy.deepcopy(block)
        self._run = (index, block, device)
        self._layers = linear_layers(block, name)
        self._states, self._room = states, room
        self._kept: list[Inputs] | None = None
        self._once = self._advanced = False

    def prepare(self, groups: Sequence[Layers]) -> None:
        """Be told all groups of layers that will be asked for; run the block for all if possible.

        Args:
            groups: of layers that get the same, by name; or one of all layers.
        """
        self._once = len(groups) == 1
        if not self._once and self._size(groups) <= self._room:
            every = {name: layer for group in groups for name, layer in group.items()}
            self._kept = list(self._seen(every, through=True))

    def inputs(self, layers: Layers, *, one_group: bool) -> Iterator[Inputs]:
        """For each batch what the layers, or modules of experts, get in the dense model.

        Args:
            layers: one of the groups.
            one_group: they are known to get the same.
        """
        if self._kept is not None:
            yield from self._kept
        else:
            yield from self._seen(layers, one_group=one_group, through=self._once)

    def advance(self) -> None:
        """Let the dense model's hidden states go on behind the block, if they did not yet."""
        if not self._advanced:
            self._states.advance(*self._run)

    def _size(self, groups: Sequence[Layers]) -> int:
        """Bytes of what the layers get in all batches."""
        states, width, routed = self._states.hidden, 0, set[str]()
        for plain, experts in map(apart, groups):
            width += next((layer.shape[1] for layer in plain.values()), 0)
            routed |= experts.keys()  # both their groups are of what their module gets
        width += len(routed) * states[0].shape[-1]
        return sum(each.nbytes // each.shape[-1] * width for each in states)

    def _seen(self, layers: Layers, *, through: bool, one_group: bool = False) -> Iterator[Inputs]:
        """See `inputs`; a run `through` the block takes the hidden states along."""
        plain, experts = apart({name: self._layers[name] for name in layers})
        self._advanced = self._advanced or through
        enough = 1 if one_group else len(plain) + len(experts)
        runs = self._states.advancing if through else self._states.passes
        for run in runs(*self._run):
            found: Inputs = {}
            owner_of = sharing()

            def keep(name: str, x: Tensor) -> None:
                owner = owner_of(name, x)  # noqa: B023 (called in this turn)
                x = found[owner] if owner in found else x.clone()  # noqa: B023
                for each in plain if one_group else (name,):
                    found[each] = x  # noqa: B023

            def keep_routed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                hidden = args[0] if args else kwargs["hidden_states"]
                module = next(iter(experts[name].values())).module
                found[name] = (module, hidden.clone())  # noqa: B023

            ended = end_after(math.inf if through else enough)
            with watch(plain, keep, ended), watch_experts(experts, keep_routed, ended):
                until_seen(run)
            yield found
