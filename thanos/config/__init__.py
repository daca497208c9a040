"""Configuration of a run: the typed schema of `conf/`, composed by Hydra, checked, made a run."""

from .checks import NAME
from .compose import GROUPS, dumps, options, refuse_unused, resolve
from .runs import PLACE_KEYS, Run, RunBuilder
from .schema import Config
from .usage import key_of, unused_keys

__all__ = [
    "GROUPS",
    "NAME",
    "PLACE_KEYS",
    "Config",
    "Run",
    "RunBuilder",
    "dumps",
    "key_of",
    "options",
    "refuse_unused",
    "resolve",
    "unused_keys",
]
