"""Rotary positions in the words of readers before transformers 5, for which it has a new one.

They look for those words only; where they do not find them they take a default and compute
something else.
"""

from collections.abc import Mapping
from typing import Any

_NEW = "rope_parameters"
# The base of the rotation, and the share of a head that turns; some types have words of their own.
_WORDS = ("rope_theta", "partial_rotary_factor")
_OWN_WORDS = dict.fromkeys(("gpt_neox", "gpt_neox_japanese"), ("rotary_emb_base", "rotary_pct"))
# Types whose layers turn in two ways: the base of those that see a window only.
_LOCAL_WORD = dict.fromkeys(("gemma3_text", "gemma3n_text"), "rope_local_base_freq")


def in_older_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, and those of its parts, with the former words where it lacks them."""
    parts = {key: _told(value) for key, value in values.items() if isinstance(value, dict)}
    return _told({**values, **parts})


def _told(values: dict[str, Any]) -> dict[str, Any]:
    rotary, kind = values.get(_NEW), str(values.get("model_type"))
    if not isinstance(rotary, dict):
        return values
    added = {}
    if kind in _LOCAL_WORD:
        local, rotary = rotary.get("sliding_attention"), rotary.get("full_attention")
        if not isinstance(local, dict) or not isinstance(rotary, dict):
            return values
        added = {_LOCAL_WORD[kind]: local.get("rope_theta")}
    words = _OWN_WORDS.get(kind, _WORDS)
    if "rope_theta" not in rotary or words[0] in values:
        return values
    added |= {word: rotary[new] for word, new in zip(words, _WORDS, strict=True) if new in rotary}
    scaling = {key: value for key, value in rotary.items() if key not in _WORDS}
    plain = scaling.get("rope_type", "default") == "default"
    return {**added, **values, **({} if plain else {"rope_scaling": scaling})}
