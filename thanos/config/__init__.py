"""Configuration of a run: the typed schema of `conf/`, composed by Hydra, checked, made a run."""

from .checks import NAME
from .compose import GROUPS, Folders, axis, dumps, options, refuse_unused, resolve
from .grammar import key_of
from .runs import PLACE_KEYS, Run, RunBuilder
from .schema import Config
from .usage import unused_keys

__all__ = [
    "GROUPS",
    "NAME",
    "PLACE_KEYS",
    "Config",
    "Folders",
    "Run",
    "RunBuilder",
    "axis",
    "dumps",
    "key_of",
    "options",
    "refuse_unused",
    "resolve",
    "unused_keys",
]
