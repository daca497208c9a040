"""Gather the statistics of the inputs that a block's linear layers receive."""

import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thanos.errors import UserError
from thanos.pruning import InputStatistics

from .dense import CalledWronglyError
from .experts import ExpertMatrix, RoutedInputs
from .linear import LinearLayer
from .parts import part
from .watching import end_after, until_seen, watch, watch_experts

Passes = Iterable[Callable[[], object]]
Layers = Mapping[str, LinearLayer]


@dataclass(frozen=True)
class DenseTwin:
    """The block as it is in the dense model: what do its layers get there for the same tokens?

    Attributes:
        layers: its linear layers, by the names that they have in the block.
        passes: run it batch by batch, on the dense model's hidden states.
    """

    layers: Layers
    passes: Passes


def gather_statistics(
    layers: Layers,
    passes: Passes,
    *,
    gram: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    twin: DenseTwin | None = None,
    one_group: bool = False,
    rehearsed: bool = False,
) -> dict[str, InputStatistics]:
    """Run each of `passes` and return the statistics of every layer's inputs, by layer name.

    A pass ends when the last layer is about to run: what it makes of its inputs is not wanted.
    Layers that are given the very same tensor (query, key and value; gate and up) share one
    object: who shares with whom is seen in the first pass, not guessed from names. An expert's
    matrices get the statistics of the tokens that are routed to it, which may be none.

    Args:
        layers: by name.
        passes: run their block, batch by batch.
        gram: accumulate the whole Gram matrix.
        dtype: to accumulate in.
        device: where the statistics live.
        twin: the block in the dense model; with it the statistics hold C as well.
        one_group: the layers are one of `input_groups`: a pass ends when their input is seen.
        rehearsed: each layer is known to be called once; otherwise the first pass goes to its end,
            to see it.

    Raises:
        CalledWronglyError: a layer is not called, or called twice, in a pass.
        UserError: its inputs are not finite.
    """
    options: dict[str, Any] = {
        **{"gram": gram, "cross": twin is not None},
        **{"dtype": dtype, "device": device},
    }
    plain, experts = _apart(layers)
    routed = {name: RoutedInputs(own, **options) for name, own in experts.items()}
    statistics: dict[str, InputStatistics] = {}
    owners: dict[str, LinearLayer] = {}  # the first layer of each group that shares
    dense: dict[str, Any] = {}  # what the batch's inputs are in the dense model
    owner_of = _sharing()

    def add(name: str, x: Tensor) -> None:
        with part("gram"):
            statistics[name].update(x, dense.get(name))

    def assign(name: str, x: Tensor) -> None:
        if name in statistics:
            raise CalledWronglyError(name, 2)
        owner = owner_of(name, x)
        if owner == name:
            owners[name] = plain[name]
            statistics[name] = InputStatistics(x.shape[-1], **options)
            add(name, x)
        for each in plain if one_group else (name,):
            statistics[each] = statistics[owner]

    def route(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        routed[name].see(args, kwargs, dense.get(name))

    of_twin = itertools.repeat({}) if twin is None else _dense_inputs(twin, layers, one_group)
    see, watched = assign, plain
    for run, dense in zip(passes, of_twin, strict=False):  # noqa: B007 (read by the functions)
        enough = 1 if one_group else len(watched) + len(experts)
        ended = end_after(math.inf if see is assign and not (one_group or rehearsed) else enough)
        with watch(watched, see, ended), watch_experts(experts, route, ended):
            until_seen(run)
        if see is assign:
            _refuse_unseen(plain, statistics)
            see, watched = add, owners
    for inputs in routed.values():
        statistics |= inputs.statistics
    for name in (*owners, *(name for own in experts.values() for name in own)):
        if not torch.isfinite(statistics[name].squared_norms).all():
            raise UserError(
                f"inputs of {name} hold NaN or infinite values; "
                "check the model, or load it in another dtype"
            )
    return statistics


def input_groups(
    layers: Layers, run: Callable[[], object], *, rehearsed: bool = False
) -> list[dict[str, LinearLayer]]:
    """The layers in groups that are given the very same tensor, as the forward pass reaches them.

    The gate and up matrices of all experts of a mixture are one group, their down matrices the
    next.

    Args:
        layers: by name.
        run: runs their block on one batch.
        rehearsed: see `gather_statistics`.

    Raises:
        CalledWronglyError: a layer is not called, or called twice.
    """
    plain, experts = _apart(layers)
    groups: dict[Any, list[str]] = {}
    owner_of, seen = _sharing(), dict[str, None]()

    def note(name: str, x: Tensor) -> None:
        if name in seen:
            raise CalledWronglyError(name, 2)
        seen[name] = None
        groups.setdefault(owner_of(name, x), []).append(name)

    def note_experts(module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for name, layer in experts[module].items():
            seen[name] = None
            groups.setdefault((module, layer.parameter == "down_proj"), []).append(name)

    ended = end_after(len(plain) + len(experts) if rehearsed else math.inf)
    with watch(plain, note, ended), watch_experts(experts, note_experts, ended):
        until_seen(run)
    _refuse_unseen(layers, seen)
    return [{name: layers[name] for name in names} for names in groups.values()]


def _dense_inputs(twin: DenseTwin, layers: Layers, one_group: bool) -> Iterator[dict[str, Any]]:
    """For each batch what the layers, or modules of experts, get in the dense model."""
    plain, experts = _apart({name: twin.layers[name] for name in layers})
    for run in twin.passes:
        found: dict[str, Any] = {}
        owner_of = _sharing()

        def keep(name: str, x: Tensor) -> None:
            owner = owner_of(name, x)  # noqa: B023 (called in this turn)
            x = found[owner] if owner in found else x.clone()  # noqa: B023
            for each in plain if one_group else (name,):
                found[each] = x  # noqa: B023

        def keep_routed(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            module = next(iter(experts[name].values())).module
            found[name] = (module, hidden.clone())  # noqa: B023

        ended = end_after(1 if one_group else len(plain) + len(experts))
        with watch(plain, keep, ended), watch_experts(experts, keep_routed, ended):
            until_seen(run)
        yield found


def _apart(layers: Layers) -> tuple[Layers, dict[str, dict[str, ExpertMatrix]]]:
    """Layers that are modules, and the matrices of each module of experts by the module's name."""
    experts: dict[str, dict[str, ExpertMatrix]] = {}
    for name, layer in layers.items():
        if isinstance(layer, ExpertMatrix):
            experts.setdefault(name.rsplit(".", 2)[0], {})[name] = layer
    plain = {name: layer for name, layer in layers.items() if not isinstance(layer, ExpertMatrix)}
    return plain, experts


def _sharing() -> Callable[[str, Tensor], str]:
    """A function that says which layer was the first to be given the very tensor that one gets."""
    seen: list[tuple[weakref.ref[Tensor], int, str]] = []

    def owner_of(name: str, x: Tensor) -> str:
        for tensor, version, owner in seen:
            if tensor() is x and version == x._version:
                return owner
        seen.append((weakref.ref(x), x._version, name))
        return name

    return owner_of


def _refuse_unseen(layers: Layers, seen: Mapping[str, Any]) -> None:
    for name in layers.keys() - seen.keys():
        raise CalledWronglyError(name, 0)
