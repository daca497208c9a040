"""The typed schema of `conf/` and the identity of a run."""

import copy
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .artifacts import verify_text
from .errors import UserError
from .pruning.composition import compose as compose_method
from .pruning.errors import PruningError
from .pruning.patterns import parse_pattern

PROJECT = Path(__file__).resolve().parent.parent
CONF = PROJECT / "conf"
QUANTIZATIONS = ("none", "int8", "int4")
GROUPS = ("model", "calibration", "method", "evaluation", "tracking")

# A run is identified by everything but where it is computed, read from, written and logged.
_NOT_IDENTITY = ("device", "hidden_memory", "memory_budget", "mirror", "output_dir", "tracking")
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of models and methods; also part of paths


@dataclass
class ModelConfig:
    """A Hugging Face folder or hub id, and how many tokens a window may have."""

    path: str = MISSING
    name: str = ""  # default: the last component of `path`
    revision: str | None = None
    context: int = 2048  # tokens; capped by what the model supports
    trust_remote_code: bool = False
    skip: list[str] = field(default_factory=list)  # layers left dense on purpose
    rare_experts: str = "error"  # experts with fewer tokens than columns; or "magnitude"


@dataclass
class CalibrationConfig:
    """Where the calibration windows come from and how many there are."""

    name: str = MISSING
    source: str = MISSING
    path: str | None = None
    windows: int = 128
    batch_size: int = 16


@dataclass
class MethodConfig:
    """A pruning method and its parameters; see `thanos.pruning.prune_weight`."""

    name: str = MISSING
    label: str = ""  # what tables call it; default: `name`
    block_size: int | None = None
    damping: float = 0.01
    refine_steps: int = 0
    metric: str | None = None
    scope: str | None = None
    update: str | None = None
    outlier_score: str = "exact"


@dataclass
class EvaluationConfig:
    """Corpora for perplexity, zero-shot tasks, and whether latencies are measured as well."""

    name: str = MISSING
    corpora: list[str] = field(default_factory=list)
    path: str | None = None
    max_windows: int | None = None
    batch_size: int = 8
    tasks: list[str] = field(default_factory=list)
    limit: int | None = None  # items per zero-shot task
    task_batch_size: int = 32
    quantization: str = "none"  # of the linear layers' weights: none, int8 or int4
    efficiency: bool = False  # latency beside the dense model; changes no other result


@dataclass
class TrackingConfig:
    """Weights & Biases: offline, online or disabled."""

    mode: str = "offline"
    project: str = "thanos"


@dataclass
class Config:
    """One run, resolved."""

    model: ModelConfig = field(default_factory=ModelConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    pattern: str = "0.5"
    outlier_fraction: float = 0.0
    seed: int = 0
    precision: str = "float32"
    layer_errors: bool = True
    device: str = "auto"
    memory_budget: int | None = None  # bytes of temporaries per layer; default: from what is free
    hidden_memory: float = 8.0  # GiB of hidden states in memory; more lie in mapped files
    mirror: str | None = None  # folder that takes the hub's place, see thanos.stages.mirror
    output_dir: str | None = None

    @property
    def dense(self) -> bool:
        """Whether this is the unpruned reference."""
        return self.method.name == "dense"

    def identity(self) -> dict[str, Any]:
        """What distinguishes this run from others; the dense run depends on no pruning option."""
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in _NOT_IDENTITY}
        del values["evaluation"]["efficiency"]
        if self.dense:
            values = {k: values[k] for k in ("model", "evaluation", "pattern")}
        return values

    def as_reference(self) -> "Config":
        """The dense run without the pruning options that it does not depend on."""
        return Config(
            model=self.model,
            calibration=CalibrationConfig(name="none", source="none"),
            method=MethodConfig(name="dense", label="dense"),
            evaluation=self.evaluation,
            tracking=self.tracking,
            pattern=self.pattern,
            device=self.device,
            mirror=self.mirror,
        )

    def for_evaluation(self) -> "Config":
        """The same run reduced to what determines its evaluation windows."""
        kept = ("name", "corpora", "path", "max_windows")
        chosen = {key: getattr(self.evaluation, key) for key in kept}
        return Config(
            model=self.model,
            calibration=CalibrationConfig(name="none", source="none"),
            method=MethodConfig(name="dense"),
            evaluation=EvaluationConfig(**chosen),
            mirror=self.mirror,
        )

    def evaluation_identity(self) -> dict[str, Any]:
        """What determines the evaluation windows."""
        reduced = dataclasses.asdict(self.for_evaluation())
        return {"tokenizer": self._tokenizer(), "evaluation": reduced["evaluation"]}

    def for_calibration(self) -> "Config":
        """The same run reduced to what determines its calibration tokens."""
        return Config(
            model=self.model,
            calibration=self.calibration,
            method=MethodConfig(name="dense"),
            evaluation=EvaluationConfig(name="none"),
            seed=self.seed,
            mirror=self.mirror,
        )

    def calibration_identity(self) -> dict[str, Any]:
        """What determines the calibration tokens."""
        calibration = dataclasses.asdict(self.calibration)
        del calibration["batch_size"]
        return {"tokenizer": self._tokenizer(), "calibration": calibration, "seed": self.seed}

    def _tokenizer(self) -> dict[str, Any]:
        keys = ("path", "revision", "context", "trust_remote_code")
        return {key: getattr(self.model, key) for key in keys}


def hash8(values: dict[str, Any]) -> str:
    """Eight hexadecimal digits that identify nested values, whatever the order of the keys."""
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


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
    return _checked(config)


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
    return _checked(config)


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


def _checked(config: Config) -> Config:
    """Canonical and validated values; what only a layer's shape can tell is checked later."""
    if not config.model.name:
        config.model.name = Path(config.model.path).name
    for key, name in (("model.name", config.model.name), ("method.label", config.method.label)):
        if name and not re.fullmatch(NAME, name):
            raise UserError(f"{key} {name!r} must be made of letters, digits, '.', '_' and '-'")
    if config.dense:
        config.pattern, config.outlier_fraction = "dense", 0.0
    else:
        method = config.method
        try:
            pattern = parse_pattern(config.pattern)
            compose_method(method.name, pattern, method.metric, method.scope, method.update)
        except PruningError as error:
            raise UserError(str(error)) from error
        config.pattern = str(pattern)
    config.method.label = config.method.label or config.method.name
    for group, needs_file, path in (
        ("calibration", config.calibration.source == "text", config.calibration.path),
        ("evaluation", "text" in config.evaluation.corpora, config.evaluation.path),
    ):
        if needs_file and not path:
            raise UserError(f"key '{group}.path' must be given: the text file to read")
    positive = {
        "model.context": config.model.context,
        "calibration.windows": config.calibration.windows,
        "calibration.batch_size": config.calibration.batch_size,
        "evaluation.batch_size": config.evaluation.batch_size,
        "evaluation.task_batch_size": config.evaluation.task_batch_size,
        "evaluation.max_windows": config.evaluation.max_windows,
        "evaluation.limit": config.evaluation.limit,
        "method.block_size": config.method.block_size,
        "memory_budget": config.memory_budget,
    }
    for key, value in positive.items():
        if value is not None and value < 1:
            raise UserError(f"{key} is {value}; it must be at least 1")
    if not 0 <= config.outlier_fraction < 1:
        raise UserError(f"outlier_fraction is {config.outlier_fraction:g}; it must be in [0, 1)")
    for key, number in (
        ("method.damping", config.method.damping),
        ("method.refine_steps", config.method.refine_steps),
        ("hidden_memory", config.hidden_memory),
    ):
        if number < 0:
            raise UserError(f"{key} is {number:g}; it must not be negative")
    _check_choice("precision", config.precision, ("float32", "float64"))
    _check_choice("model.rare_experts", config.model.rare_experts, ("error", "magnitude"))
    _check_choice("tracking.mode", config.tracking.mode, ("offline", "online", "disabled"))
    _check_choice("evaluation.quantization", config.evaluation.quantization, QUANTIZATIONS)
    _check_choice("method.outlier_score", config.method.outlier_score, ("exact", "separable"))
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise UserError(f"device is {config.device!r}; expected auto, cpu, cuda or cuda:N")
    return config


def _check_choice(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} is {value!r}; expected {', '.join(known)}")


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
