"""Compose a run's configuration from `conf/`, a user's own folders and overrides, as Hydra does.

`hydra.compose` takes a twentieth of a second. What overrides choose of the groups is composed once
for all the runs that choose the same; values are then set on a copy by Hydra's own function. Where
no value refers to another key, parts of the configuration that are set alike are shared.
"""

import copy
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError
from ..paths import CONF
from .checks import checked, choices_of, named
from .files import ConfigFiles
from .grammar import Value, key_of, parsed, values_of, written
from .keys import all_keys
from .schema import Config
from .usage import unused_keys

GROUPS = tuple(key.name for key in all_keys().values() if key.is_group)
CONFIG_NAME = "config"
_PARTS = tuple(name for name in all_keys() if "." not in name)
_SUITES = ("suite", "timing")  # folders of conf/ that are no group of a run
Folders = tuple[str, ...]


@functools.cache
def hydra_of(folders: Folders = ()) -> Hydra:
    """Hydra with `conf/` and a user's own folders, which may add options but not replace any.

    Raises:
        UserError: a folder does not exist, or has an option that there is already.
    """
    version.setbase("1.3")
    ConfigStore.instance().store("schema", Config)
    search = create_config_search_path(f"{ConfigFiles.scheme()}://{CONF}")
    seen = {f"{file.parent.name}/{file.stem}": CONF for file in CONF.glob("*/*.yaml")}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"--config-dir {folder} does not exist; give a folder like conf/")
        for file in sorted(folder.glob("*/*.yaml")):
            option = f"{file.parent.name}/{file.stem}"
            if option in seen:
                raise UserError(f"{file}: {seen[option]} has a {option} already; rename the file")
            seen[option] = folder
        anchor = SearchPathQuery(provider="schema")
        place = f"{ConfigFiles.scheme()}://{folder.absolute()}"
        search.prepend("command-line", place, anchor)
    return Hydra("thanos", ConfigLoaderImpl(search))


@functools.cache
def options(group: str, folders: Folders = ()) -> list[str]:
    """The names that a configuration group offers."""
    loader = hydra_of(folders).config_loader
    return sorted(loader.get_group_options(group, ObjectType.CONFIG))


def resolve(overrides: Sequence[str], folders: Folders = ()) -> Config:
    """Compose, check and resolve one run from Hydra overrides such as `method=wanda`.

    Args:
        overrides: in Hydra's grammar, text as typed.
        folders: a user's own, with groups like those of `conf/`.

    Raises:
        UserError: for an unknown key or option, a wrong type, or a value out of its range.
    """
    return checked(_composed(overrides, folders))


def dumps(config: Config) -> str:
    """A resolved configuration as YAML, without where it is written and tracked."""
    values = dataclasses.asdict(config)
    del values["tracking"], values["output_dir"]
    return yaml.safe_dump(values, sort_keys=False)


def refuse_unused(config: Config, overrides: Sequence[str]) -> None:
    """Refuse overrides of keys that the run's choices do not use.

    Raises:
        UserError: there is one; the message names the key and the choice.
    """
    unused = unused_keys(choices_of(config))
    for override in overrides:
        value = parsed(override).value()
        inner = [f"{key_of(override)}.{name}" for name in value] if isinstance(value, dict) else []
        for key in (key_of(override), *inner):
            if key in unused:
                raise UserError(f"key {key!r} is not used by {unused[key]}; leave it out")


def read_overrides(overrides: Sequence[str], folders: Folders = ()) -> list[Override]:
    """The overrides of one run, as Hydra reads them.

    Raises:
        UserError: one is a sweep, of Hydra itself, or of an option that a group does not have.
    """
    found = [parsed(override) for override in overrides]
    for text, override in zip(overrides, found, strict=True):
        group, value = override.key_or_group, override.value()
        if override.is_hydra_override():
            raise UserError(
                f"key {group!r} is Hydra's own and has no effect here; for where results lie see "
                "output_dir and --results"
            )
        if override.is_sweep_override():
            quoted = written(group, text.partition("=")[2])
            one = f", or quote the value if it is one: {quoted}" if quoted != text else ""
            raise UserError(f"override {text!r} has several values; sweep over them with -m{one}")
        if group in _SUITES:
            raise UserError(f"{text!r}: suites have a command, python -m thanos suite <name>")
        if override.is_delete() and group in all_keys() and group not in GROUPS:
            raise UserError(f"override {text!r}: a key cannot be removed; give it a value")
        if group in GROUPS and not isinstance(value, dict):
            _check_option(text, override, options(group, folders))
    return found


def axis(override: str, folders: Folders = ()) -> tuple[str, list[Value]]:
    """The key of an override, with its prefix, and the values that it is swept over."""
    return values_of(override, hydra_of(folders).config_loader)


def _check_option(text: str, override: Override, known: Sequence[str]) -> None:
    group, value = override.key_or_group, override.value()
    if override.is_force_add():
        raise UserError(f"override {text!r}: ++ is for keys; choose an option by {group}=…")
    if override.is_delete() and value is None:
        return
    for name in value if isinstance(value, list) else [value]:
        if name not in known:
            raise UserError(f"unknown {group} {name!r}; known: {', '.join(known)}")


def composed(overrides: Sequence[str], folders: Folders = (), hydra: bool = False) -> DictConfig:
    """What is composed, before it is resolved and checked; with Hydra's own part if asked."""
    choices, values = _apart(overrides, folders)
    with told(overrides):
        if not hydra:
            _check_keys(_applied(choices, values, folders), "", overrides, complete=False)
            return _applied(choices, values, folders)
        texts = [str(parsed(text).input_line) for text in overrides]
        return hydra_of(folders).compose_config(
            CONFIG_NAME, texts, RunMode.RUN, from_shell=True, with_log_configuration=False
        )


def _composed(overrides: Sequence[str], folders: Folders) -> Config:
    choices, values = _apart(overrides, folders)
    if any("${" in text for text in values) or _refers(choices, folders):
        whole = _applied(choices, values, folders)
        _check_keys(whole, "", overrides)
        with told(overrides):
            config = OmegaConf.to_object(whole)
    else:
        given: dict[str, list[str]] = {name: [] for name in _PARTS}
        for text in values:
            given.setdefault(key_of(text).partition(".")[0], []).append(text)
        parts = {key: _part(key, choices, tuple(v), folders) for key, v in given.items()}
        config = Config(**parts)
    assert isinstance(config, Config)
    return named(config)


def _apart(overrides: Sequence[str], folders: Folders) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The overrides that choose of groups, and those that set values."""
    choices: list[str] = []
    values: list[str] = []
    for text, override in zip(overrides, read_overrides(overrides, folders), strict=True):
        sets_values = override.key_or_group not in GROUPS or isinstance(override.value(), dict)
        (values if sets_values else choices).append(text)
    return tuple(choices), tuple(values)


@functools.cache
def _chosen(choices: tuple[str, ...], folders: Folders) -> DictConfig:
    """The configuration of some choices of groups: `hydra.compose` without Hydra's own node."""
    loader = hydra_of(folders).config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    repository = CachingConfigRepository(loader.repository)
    with told(choices):
        defaults = create_defaults_list(
            repository,
            CONFIG_NAME,
            [parsed(text) for text in choices],
            prepend_hydra=False,
            skip_missing=False,
        )
        composed = loader._compose_config_from_defaults_list(defaults.defaults, repository)
        OmegaConf.set_struct(composed, True)
        return composed


@functools.cache
def _refers(choices: tuple[str, ...], folders: Folders) -> bool:
    """Whether an option that was chosen refers to another key."""
    return "${" in OmegaConf.to_yaml(_chosen(choices, folders))


@functools.cache
def _part(key: str, choices: tuple[str, ...], values: tuple[str, ...], folders: Folders) -> Any:
    """A part of the configuration: shared by many runs, and changed by none."""
    composed = _applied(choices, values, folders)
    _check_keys(composed, key, choices + values)
    with told(values):
        node = composed._get_node(key)
        return OmegaConf.to_object(node) if OmegaConf.is_config(node) else composed[key]


def _applied(choices: tuple[str, ...], values: tuple[str, ...], folders: Folders) -> DictConfig:
    composed = _chosen(choices, folders)
    if values:
        composed = copy.deepcopy(composed)
        with told(values):
            ConfigLoaderImpl._apply_overrides_to_config([parsed(text) for text in values], composed)
    return composed


def _check_keys(
    composed: DictConfig, part: str, overrides: Sequence[str], complete: bool = True
) -> None:
    """Check that a part, or with "" all, has the keys of the schema only, and all their values."""
    have = set(_names(composed))
    known = {name for name in all_keys() if name.partition(".")[0] == part or not part}
    mine = {name for name in have if name.partition(".")[0] == part or not part}
    if unknown := sorted(mine - known):
        raise UserError(_unknown(unknown[0], overrides))
    for name in sorted(known) if complete else ():
        holder, _, last = name.rpartition(".")
        node = OmegaConf.select(composed, holder) if holder else composed
        if OmegaConf.is_missing(node, last):
            raise UserError(f"key {name!r} must be given, for example {name}=…")


def _names(composed: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, composed):
        yield f"{prefix}{name}"
        node = composed._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from _names(node, f"{prefix}{name}.")


@contextmanager
def told(overrides: Sequence[str]) -> Iterator[None]:
    """Say what Hydra refuses in one line that names the key and, where there is one, the remedy."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error, overrides)) from error


def _one_line(error: BaseException, overrides: Sequence[str]) -> str:
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    text = _flat(cause)
    if (key and "not in '" in text) or "Could not override" in str(error):
        name = key or str(error).partition("'")[2].partition("'")[0]
        return _unknown(str(name), overrides)
    return f"{key}: {text}" if key and key not in text else text


def _unknown(name: str, overrides: Sequence[str]) -> str:
    given = next((text for text in overrides if key_of(text) == name), name)
    close = difflib.get_close_matches(name, all_keys(), 1, cutoff=0.75)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"unknown key {name!r} (from {given!r}); {meant}see python -m thanos --help for the keys"


def _flat(error: BaseException) -> str:
    """A message in one line, without OmegaConf's notes and links."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    notes = ("full_key:", "object_type", "reference_type", "See https:", "To append to your")
    return " ".join(line for line in lines if line and not line.startswith(notes)).rstrip(".")
