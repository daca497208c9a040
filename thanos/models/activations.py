"""Gather the statistics of the inputs that a block's linear layers receive."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from thanos.errors import UserError
from thanos.pruning import InputStatistics

from .dense import CalledWronglyError
from .dense_twin import DenseTwin
from .experts import RoutedInputs
from .linear import Layers, LinearLayer
from .parts import part
from .watching import apart, end_after, sharing, until_seen, watch, watch_experts

Passes = Iterable[Callable[[], object]]


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
    plain, experts = apart(layers)
    routed = {name: RoutedInputs(own, **options) for name, own in experts.items()}
    statistics: dict[str, InputStatistics] = {}
    owners: dict[str, LinearLayer] = {}  # the first layer of each group that shares
    dense: dict[str, Any] = {}  # what the batch's inputs are in the dense model
    owner_of = sharing()

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

    of_twin = itertools.repeat({}) if twin is None else twin.inputs(layers, one_group=one_group)
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
    plain, experts = apart(layers)
    groups: dict[Any, list[str]] = {}
    owner_of, seen = sharing(), dict[str, None]()

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


def _refuse_unseen(layers: Layers, seen: Mapping[str, Any]) -> None:
    for name in layers.keys() - seen.keys():
        raise CalledWronglyError(name, 0)
