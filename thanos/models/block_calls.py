"""What goes into a block and comes out of it besides the hidden states, and reaches later blocks.

A block may return more than hidden states: parts that the model drops, or hands to later blocks.
Blocks may also share a container that the model gives to all of them, such as a dictionary of keys
and values. Both are known only when the blocks run.
"""

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from thanos.errors import UserError


@dataclass(frozen=True)
class BlockCall:
    """What the model passes to one block besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]  # masks, rotary embeddings, ...: may differ from block to block
    name: str | None = None  # by which it passes the hidden states; None: they come first


@dataclass(frozen=True)
class Handed:
    """Stands for a part of what a block returns, until the block runs."""

    block: int
    part: int | str


class Returned(tuple[Any, ...]):
    """What a block that only takes notes returns: hidden states, then `Handed`, by any name."""

    block: int

    @classmethod
    def of(cls, block: int, hidden: Tensor, count: int) -> "Returned":
        """As many parts as `count`."""
        made = cls((hidden, *(Handed(block, part) for part in range(1, count))))
        made.block = block
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[0] if "hidden" in name else Handed(self.block, name)

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else super().__getitem__(key)


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns: its tensor, its first part, or the one so called.

    Raises:
        UserError: none are found.
    """
    if isinstance(output, Tensor):
        return output
    parts = _parts(output)
    name = next((n for n in parts if isinstance(n, str) and "hidden" in n), next(iter(parts), 0))
    if not isinstance(parts.get(name), Tensor):
        raise UserError(f"a block returns {type(output).__name__}, in which are no hidden states")
    return parts[name]


def _parts(output: Any) -> dict[int | str, Any]:
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return dict(output._asdict())
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    if is_dataclass(output):
        return {own.name: getattr(output, own.name) for own in fields(output)}
    return {}


@dataclass
class Passed:
    """What the blocks that have run leave to later ones, for one batch."""

    returned: dict[Handed, Any] = field(default_factory=dict)
    shared: dict[int, Any] = field(default_factory=dict)  # by the recorded container's id

    def copied(self) -> "Passed":
        """The same, to go a way of its own."""
        return Passed(dict(self.returned), dict(self.shared))

    def new_since(self, before: "Passed") -> Iterator[Tensor]:
        """The tensors of all that is here and was not before."""
        known = {id(value) for value in (*before.returned.values(), *before.shared.values())}
        for value in (*self.returned.values(), *self.shared.values()):
            if id(value) not in known:
                yield from _tensors(value)

    def keep_returned(self, index: int, output: Any, calls: list[BlockCall], home: Any) -> None:
        """Keep the parts of a block's output that later blocks get, and no longer than they need.

        Raises:
            UserError: the output has no such part.
        """
        wanted = {item for call in calls[index + 1 :] for item in _handed(call)}
        parts = _parts(output)
        for item in wanted:
            if item.block == index:
                part = item.part
                part = list(parts)[part] if isinstance(part, int) and part < len(parts) else part
                if part not in parts:
                    raise UserError(f"block {index} returns no part {part}, which a later one gets")
                self.returned[item] = Moving(self, home).moved(parts[part])
        self.returned = {item: self.returned[item] for item in wanted if item in self.returned}


class Moving:
    """Moves what a block is given to a device, and notices which containers the block changes."""

    def __init__(self, passed: Passed, device: torch.device | str) -> None:
        self._passed = passed
        self._device = device
        self._seen: dict[int, tuple[Any, list[Any]]] = {}  # container on the device, as it was

    def moved(self, value: Any) -> Any:
        """The value with its tensors on the device and what earlier blocks left in its place.

        Raises:
            UserError: an earlier block has not run that it needs.
        """
        if isinstance(value, Tensor):
            return value.to(self._device)
        if isinstance(value, Handed):
            if value not in self._passed.returned:
                raise UserError(f"a block needs what block {value.block} returns besides states")
            return self.moved(self._passed.returned[value])
        if isinstance(value, tuple):
            items = [self.moved(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if type(value) is not list and not isinstance(value, MutableMapping):
            return value
        if id(value) not in self._seen:
            now = copy.copy(self._passed.shared.get(id(value), value))
            for key, item in _items(now):
                now[key] = self.moved(item)
            self._seen[id(value)] = now, list(_items(now))
        return self._seen[id(value)][0]

    def keep_changed(self, home: torch.device | str) -> None:
        """Keep, at `home`, the containers that the block has put something into."""
        for recorded, (now, before) in self._seen.items():
            after = list(_items(now))
            same = len(after) == len(before) and all(
                key == old_key and item is old
                for (key, item), (old_key, old) in zip(after, before, strict=True)
            )
            if not same:
                self._passed.shared[recorded] = Moving(Passed(), home).moved(now)


def _items(container: Any) -> Iterator[tuple[Any, Any]]:
    yield from list(enumerate(container) if isinstance(container, list) else container.items())


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _handed(value: Any) -> Iterator[Handed]:
    """Every `Handed` in a call's arguments."""
    if isinstance(value, Handed):
        yield value
    elif isinstance(value, BlockCall):
        yield from _handed((value.args, value.kwargs))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _handed(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _handed(item)


def reuse(new: Any, old: Any, known: dict[tuple[int, int], Any]) -> Any:
    """Return `new` with every tensor replaced by its counterpart in `old` where they are equal.

    `known` remembers what was made of each pair: blocks share their masks, and one comparison is
    enough; and a container that blocks share is shared by what is returned too.
    """
    pair = (id(new), id(old))
    if pair not in known:
        known[pair] = _reused(new, old, known)
    return known[pair]


def _reused(new: Any, old: Any, known: dict[tuple[int, int], Any]) -> Any:
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        return old if new.dtype == old.dtype and torch.equal(new, old) else new
    if type(new) is not type(old):
        return new
    if isinstance(new, BlockCall):
        args, kwargs = reuse(new.args, old.args, known), reuse(new.kwargs, old.kwargs, known)
        return BlockCall(args, kwargs, new.name)
    if type(new) in (tuple, list) and len(new) == len(old):
        return type(new)(reuse(*pair, known) for pair in zip(new, old, strict=True))
    if type(new) is dict and new.keys() == old.keys():
        return {key: reuse(new[key], old[key], known) for key in new}
    return new
