"""Configuration of a run: the typed schema of `conf/`, composed by Hydra, checked and written."""

from .checks import NAME
from .compose import CONF, GROUPS, PROJECT, dumps, load, loads, options, resolve
from .schema import Config, hash8

__all__ = [
    "CONF",
    "GROUPS",
    "NAME",
    "PROJECT",
    "Config",
    "dumps",
    "hash8",
    "load",
    "loads",
    "options",
    "resolve",
]
