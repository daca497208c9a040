"""Compose a run's configuration from `conf/` and overrides."""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UserError
from ..paths import CONF
from .checks import checked, choices_of, named
from .schema import Config
from .usage import key_of, unused_keys

GROUPS = ("model", "calibration", "method", "evaluation", "tracking")
_PARSER = OverridesParser.create()


@functools.cache
def options(group: str) -> list[str]:
    """The names that a configuration group offers."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def resolve(overrides: Sequence[str]) -> Config:
    """Compose, check and resolve one run from Hydra overrides such as `method=wanda`.

    Raises:
        UserError: for an unknown key or option, a wrong type, or a value out of its range.
    """
    parts: dict[str, list[str]] = {}
    for override in overrides:
        _check_option(override)
        key = override.partition("=")[0].partition(".")[0]
        parts.setdefault(key, []).append(override)
    # No group refers to another, so each is composed alone, once for all the runs that share it.
    config = copy.copy(_composed(()))
    for key, given in parts.items():
        part = _composed(tuple(given))
        if hasattr(config, key):
            setattr(config, key, getattr(part, key))
    return checked(config)


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
        if (key := key_of(override)) in unused:
            raise UserError(f"key {key!r} is not used by {unused[key]}; leave it out")


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Config:
    """The configuration under some overrides: shared by many runs, and never changed by one."""
    chosen = tuple(text for text in overrides if text.partition("=")[0] in GROUPS)
    try:
        values = [_PARSER.parse_override(text) for text in overrides if text not in chosen]
        composed = copy.deepcopy(_by_hydra(chosen))
        for value in values:
            if value.type is not OverrideType.CHANGE or value.is_sweep_override():
                raise ValueError
            OmegaConf.update(composed, value.key_or_group, value.value(), merge=False)
    except (HydraException, OmegaConfBaseException, ValueError):
        # Plain values need no composition, which takes a hundred times longer; whatever is more
        # than plain, or wrong, is for Hydra to take or to refuse.
        composed = _by_hydra(overrides)
    if missing := sorted(OmegaConf.missing_keys(composed)):
        raise UserError(f"key {missing[0]!r} must be given, for example {missing[0]}=…")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return named(config)


@functools.cache
def _by_hydra(overrides: tuple[str, ...]) -> DictConfig:
    ConfigStore.instance().store("schema", Config)
    try:
        if not GlobalHydra.instance().is_initialized():
            initialize_config_dir(str(CONF), job_name="thanos", version_base="1.3")
        return compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error, overrides)) from error


def _check_option(override: str) -> None:
    group, _, name = override.partition("=")
    if group in GROUPS and name not in options(group):
        raise UserError(f"unknown {group} {name!r}; known: {', '.join(options(group))}")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


def _one_line(error: BaseException, overrides: Sequence[str]) -> str:
    """Hydra's message in one line that names the key and, where there is one, the remedy."""
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    text = _first_line(cause)
    if "is not in" in text or "Could not override" in _first_line(error):
        name = key or _first_line(error).partition("'")[2].partition("'")[0]
        given = next((o for o in overrides if o.lstrip("+~").startswith(f"{name}=")), name)
        return f"unknown key {name!r} (from {given!r}); see conf/config.yaml for the keys"
    return f"{key}: {text}" if key and key not in text else text
