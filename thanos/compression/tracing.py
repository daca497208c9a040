"""Find out, by disturbing a running block, which rows of a layer feed which inputs of another.

The names of layers say nothing here: whatever an architecture does between two linear layers
(activation, gating, attention, shared heads), an input channel of the later one either changes
when a row of the earlier one is disturbed, or is bit for bit the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thanos.models import LinearLayer

Run = Callable[[], Tensor]  # the block on some hidden states of one window


@dataclass(frozen=True)
class Link:
    """Each input channel of `consumer` is made from at most one output row of `producer`."""

    producer: str
    consumer: str
    sources: Tensor  # (consumer's in_features,): a row of the producer; -1 for none
    pointwise: bool  # token by token and channel by channel, so that channels can be left out

    def rows_read_by(self, channels: Tensor) -> Tensor:
        """The producer's rows that these input channels of the consumer are made from."""
        rows = self.sources[channels]
        return rows[rows >= 0].unique()


def find_links(run: Run, layers: Mapping[str, LinearLayer]) -> list[Link]:
    """Return the links between the layers of a block.

    Each producer's rows are disturbed by the bits of their numbers: first those with bit 0 set,
    then those without it, and so on. A channel that one row alone feeds changes in exactly one of
    the two, which spells out the row's number; one that several rows feed changes in both for
    some bit. So all channels of all consumers are known after 2 log₂(rows) runs.
    """
    with torch.no_grad():
        undisturbed = _inputs(run, layers)
        links: list[Link] = []
        for name, layer in layers.items():
            links += _links_from(name, layer, run, layers, undisturbed)
    return links


@torch.no_grad()
def is_unused(run: Run, layer: LinearLayer, rows: Tensor) -> bool:
    """Whether the block's output stays the same, bit for bit, whatever these rows give."""
    expected = run()
    with _disturbed(layer, rows):
        return torch.equal(run(), expected)


def _links_from(
    producer: str,
    layer: LinearLayer,
    run: Run,
    layers: Mapping[str, LinearLayer],
    undisturbed: dict[str, Tensor],
) -> Iterator[Link]:
    rows = torch.arange(layer.shape[0], device=layer.weight.device)

    def changes(disturbed: Tensor, tokens: int | None = None) -> dict[str, Tensor]:
        with _disturbed(layer, disturbed, tokens):
            inputs = _inputs(run, layers)
        return {name: inputs[name] != undisturbed[name] for name in sources}  # (..., T, b)

    sources = {
        name: torch.zeros(held.shape[-1], dtype=torch.int64, device=held.device)
        for name, held in undisturbed.items()
        if name != producer
    }
    touched = {name: _channels(changed) for name, changed in changes(rows).items()}
    sources = {name: source for name, source in sources.items() if touched[name].any()}
    for bit in range((len(rows) - 1).bit_length()):
        if not sources:
            return
        is_set = (rows >> bit) & 1 == 1
        ones, zeros = changes(rows[is_set]), changes(rows[~is_set])
        for name in list(sources):
            one, zero = _channels(ones[name]), _channels(zeros[name])
            if torch.equal(one ^ zero, touched[name]):
                sources[name] |= one.long() << bit
            else:
                del sources[name]
    if not sources:
        return
    first_token = changes(rows, tokens=1)
    for name, source in sources.items():
        one_to_one = torch.equal(source, rows) and bool(touched[name].all())
        local = not first_token[name].flatten(0, -2)[1:].any()
        yield Link(producer, name, source.where(touched[name], -1), one_to_one and local)


def _inputs(run: Run, layers: Mapping[str, LinearLayer]) -> dict[str, Tensor]:
    """What each layer is given in one run."""
    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            seen[name] = args[0].detach()

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            handle = layer.module.register_forward_pre_hook(recorder(name))
            hooks.callback(handle.remove)
        run()
    return seen


@contextmanager
def _disturbed(layer: LinearLayer, rows: Tensor, tokens: int | None = None) -> Iterator[None]:
    """Replace these output rows of the layer, for the first `tokens` tokens or for all."""

    def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        changed = output.clone()
        part = changed[..., :tokens, :]
        # Positive, because an activation such as relu hides changes among negative values.
        noise = 1 + torch.rand(part.shape, generator=torch.Generator().manual_seed(0))
        scale = output.float().abs().mean().clamp(min=1e-3)
        part[..., rows] = (scale * noise.to(output.device))[..., rows].to(output.dtype)
        return changed

    handle = layer.module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _channels(changed: Tensor) -> Tensor:
    """Channels (b,) that changed for any token."""
    return changed.flatten(0, -2).any(0)
