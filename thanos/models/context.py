"""How many tokens a model can look at, wherever and however its configuration says so."""

from collections.abc import Mapping
from typing import Any

# Of decoders, in the order in which they are believed; the first that holds a number counts.
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_target_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "context_length",
    "model_max_length",
)
# Their positions are counted from behind the padding token's id, in a table of as many rows as the
# configuration says.
_BEHIND_PADDING = (
    "camembert",
    "data2vec-text",
    "prophetnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
_TEXT_PARTS = ("text_config", "decoder", "language_config", "llm_config")
# Some write a number like 1e30 where there is no limit.
_NO_LIMIT = 2**31


def longest_window(config: Any) -> int | None:
    """Tokens that a model can look at, at the most; None if nothing limits them.

    Args:
        config: of the model's text part, as an object or as `text_part` of what config.json holds.
    """
    limits = (as_number(_value(config, key)) for key in _KEYS)
    limit = next((limit for limit in limits if limit is not None), None)
    if limit is not None and _value(config, "model_type") in _BEHIND_PADDING:
        padding = as_number(_value(config, "pad_token_id"))
        return max(1, limit - (1 if padding is None else padding) - 1)
    return limit


def text_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration, as JSON values, says of the part that writes text."""
    parts = (values.get(name) for name in _TEXT_PARTS)
    return {**values, **next((part for part in parts if isinstance(part, dict)), {})}


def as_number(value: Any) -> int | None:
    """A positive number as such; None for what stands there for none: null, -1, 0, 1e30, text."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value < _NO_LIMIT else None


def _value(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
