"""Numbers of a configuration that can be smaller once columns of a layer are gone.

No architecture is known by name: each is a guess, which counts if the model that it describes has
the shapes of the weights that are left and computes the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from thanos.models.quiet import quiet

# A model type that computes the same as some others and takes numbers of heads that their
# configurations refuse: Llama's wants a divisor of the hidden size. With it what else it assumes.
_LENIENT: dict[str, dict[str, Any]] = {"mistral": {"sliding_window": None}}


@dataclass(frozen=True)
class Width:
    """Some units of consecutive input columns that a layer loses, the same number in every block.

    Attributes:
        layer: within its block.
        unit: columns that go together: 1 for neurons, those of a group of heads for attention.
        count: units that go.
        changes: keys of the configuration.
    """

    layer: str
    unit: int
    count: int
    changes: dict[str, Any]

    def removed(self, dead: Tensor) -> Tensor:
        """Of the dead columns (b,) bool those that go: of the first `count` units that are dead."""
        units = dead.view(-1, self.unit).all(1)
        return (units & (units.cumsum(0) <= self.count)).repeat_interleave(self.unit)


def smaller_widths(config: PreTrainedConfig, layer: str, dead: Tensor) -> Iterator[Width]:
    """Guesses how a configuration says that a layer lost columns, whole heads before neurons.

    Args:
        config: as it is.
        layer: within its block.
        dead: (blocks, b) bool, the columns that no row reads.
    """
    width = dead.shape[1]
    values = _text_values(config)[1]
    for heads in _head_counts(values, width):
        groups = min(heads.values())
        unit = width // groups
        fixed = {"head_dim": width // max(heads.values())} if _lacks_head_dim(config) else {}
        whole = int(dead.unflatten(1, (-1, unit)).all(2).sum(1).min())
        for count in range(min(whole, groups - 1), 0, -1):
            fewer = {name: number - count * number // groups for name, number in heads.items()}
            guess = Width(layer, unit, count, fewer | fixed)
            yield guess
            yield from _retyped(config, guess)
    if count := min(int(dead.sum(1).min()), width - 1):
        equal = [name for name, value in values.items() if type(value) is int and value == width]
        unset = [name for name, value in values.items() if value is None]
        for name in (*equal, *unset):
            yield Width(layer, 1, count, {name: width - count})


def changed_config(config: PreTrainedConfig, changes: Mapping[str, Any]) -> PreTrainedConfig | None:
    """A configuration with some keys of its decoder changed; None where it refuses them."""
    part, _ = _text_values(config)
    values = config.to_dict()
    (values if part is None else values[part]).update(changes)
    with quiet():
        try:
            if values["model_type"] != config.model_type:
                return AutoConfig.for_model(**values)
            return type(config).from_dict(values)
        except Exception:  # whatever a class checks, and however it says so
            return None


def changed_values(
    config: PreTrainedConfig, values: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The same of what a config.json holds."""
    part, _ = _text_values(config)
    if part is None:
        return {**values, **changes}
    return {**values, part: {**values.get(part, {}), **changes}}


def _text_values(config: PreTrainedConfig) -> tuple[str | None, dict[str, Any]]:
    """What a configuration says of its decoder, and under which key; None if that is all of it."""
    text = config.get_text_config(decoder=True)
    if text is config:
        return None, config.to_dict()
    return next(name for name, value in vars(config).items() if value is text), text.to_dict()


def _lacks_head_dim(config: PreTrainedConfig) -> bool:
    """Whether the width of a head is left to be the quotient of others, and could be given."""
    text = config.get_text_config(decoder=True)
    computed = isinstance(getattr(type(text), "head_dim", None), property)
    return not computed and not getattr(text, "head_dim", None)


def _head_counts(values: Mapping[str, Any], width: int) -> Iterator[dict[str, int]]:
    """Numbers of heads that may go down together, most of them first."""
    counts = {
        name: value
        for name, value in values.items()
        if "head" in name and type(value) is int and value > 1 and width % value == 0
    }
    counts = {name: n for name, n in counts.items() if not name.endswith(("_dim", "_size"))}
    for size in range(len(counts), 0, -1):
        for names in combinations(counts, size):
            heads = {name: counts[name] for name in names}
            if all(number % min(heads.values()) == 0 for number in heads.values()):
                yield heads


def _retyped(config: PreTrainedConfig, guess: Width) -> Iterator[Width]:
    """The same guess in the configuration of another type, if its own refuses it."""
    if _text_values(config)[0] is not None or changed_config(config, guess.changes) is not None:
        return
    for kind, assumed in _LENIENT.items():
        described: Any = AutoModelForCausalLM._model_mapping[type(AutoConfig.for_model(kind))]
        other = {"model_type": kind, "architectures": [described.__name__]}
        yield replace(guess, changes={**guess.changes, **assumed, **other})
