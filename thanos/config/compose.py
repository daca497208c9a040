"""Compose a run's configuration from `conf/` and overrides; read and write resolved ones."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..artifacts import verify_text
from ..errors import UserError
from .checks import checked
from .schema import Config

PROJECT = Path(__file__).resolve().parent.parent.parent
CONF = PROJECT / "conf"
GROUPS = ("model", "calibration", "method", "evaluation", "tracking")


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
    config = copy.deepcopy(_composed(()))
    for key, given in parts.items():
        part = _composed(tuple(given))
        if hasattr(config, key):
            setattr(config, key, copy.deepcopy(getattr(part, key)))
    return checked(config)


def loads(text: str) -> Config:
    """Read a resolved configuration from YAML or JSON text; the inverse of `dumps`.

    Raises:
        UserError: if it does not fit the schema.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text))
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
        raise UserError(_first_line(error)) from error
    assert isinstance(config, Config)
    return checked(config)


def load(path: Path) -> Config:
    """Read a resolved configuration file.

    Raises:
        UserError: if the file is missing, is not what its checksum says or does not fit the schema.
    """
    if not path.is_file():
        raise UserError(f"configuration {path} does not exist")
    verify_text(path)
    try:
        return loads(path.read_text(encoding="utf-8"))
    except UserError as error:
        raise UserError(f"configuration {path}: {error}") from error


def dumps(config: Config) -> str:
    """The resolved configuration as YAML, without what only says which files are asked for.

    That is where it is written and tracked, and whether latencies are measured.
    """
    values = dataclasses.asdict(config)
    del values["tracking"], values["output_dir"], values["evaluation"]["efficiency"]
    return yaml.safe_dump(values, sort_keys=False)


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Config:
    ConfigStore.instance().store("schema", Config)
    try:
        if not GlobalHydra.instance().is_initialized():
            initialize_config_dir(str(CONF), job_name="thanos", version_base="1.3")
        composed = compose("config", list(overrides))
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise UserError(f"key {missing[0]!r} must be given, for example {missing[0]}=…")
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_one_line(error, overrides)) from error
    assert isinstance(config, Config)
    return config


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
