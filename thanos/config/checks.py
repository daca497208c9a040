"""Values of a configuration that its types do not rule out."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..data.sources import CONTRASTS, SOURCES
from ..errors import UserError
from ..identity.inputs import DENSE
from ..paths import model_folder
from ..pruning.composition import METHODS, Alternation
from ..pruning.composition import compose as compose_method
from ..pruning.errors import PruningError
from ..pruning.patterns import parse_pattern
from .schema import Config, ModelConfig, RecoveryConfig
from .usage import Choices

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of models and methods; also part of paths
# A wheel of the package index, as a line of pip's requirements files.
PACKAGE = rf"{NAME}==[A-Za-z0-9._+!-]+ --hash=sha256:[0-9a-f]{{64}}"
ALLOCATIONS = ("uniform", "owl", "error")
QUANTIZATIONS = ("none", "int8", "int4")


def named(config: Config) -> Config:
    """The configuration with the names that it leaves out."""
    config.model.name = config.model.name or _name_of(config.model.path)
    config.method.label = config.method.label or config.method.name
    return config


def _name_of(path: str) -> str:
    """The last component of a path or hub id, fit for names of folders."""
    folder = model_folder(path) or Path(path)
    last = folder.resolve().name if folder.name in ("", "..") else folder.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last)
    return name.lstrip("._-") or "model"


def checked(config: Config) -> Config:
    """Validated values; what only a layer's shape can tell is checked later."""
    choices = choices_of(config)
    for key, name in (("model.name", config.model.name), ("method.label", config.method.label)):
        if name and not re.fullmatch(NAME, name):
            safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")
            raise UserError(
                f"{key} {name!r} must be made of letters, digits, '.', '_' and '-', for names of "
                f"folders are made of it; try {key}={safe or 'mine'}"
            )
    called = config.method.label.casefold()
    if called in {*METHODS, DENSE} - {config.method.name}:
        raise UserError(
            f"method.label {config.method.label!r} of method {config.method.name} is another "
            "method's name, and tables would call it so; choose another label"
        )
    _check_package(config.model)
    _check_source("calibration.source", config.calibration.source, (*SOURCES, *CONTRASTS))
    for corpus in (*config.evaluation.corpora, *config.evaluation.optional_corpora):
        _check_source("evaluation.corpora", corpus, SOURCES)
    _check_source("recovery.source", config.recovery.source, (*SOURCES, *CONTRASTS))
    calibrates_on_text = choices.calibrated and config.calibration.source == "text"
    trains_on_text = choices.recovered and config.recovery.source == "text"
    for group, needs_file, path in (
        ("calibration", calibrates_on_text, config.calibration.path),
        ("recovery", trains_on_text, config.recovery.path),
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
        "method.reconstruction_batch": config.method.reconstruction_batch,
        "recovery.rank": config.recovery.rank,
        "recovery.context": config.recovery.context,
        "recovery.steps": config.recovery.steps,
        "recovery.batch_size": config.recovery.batch_size,
        "recovery.forward_batch": config.recovery.forward_batch,
        "memory_budget": config.memory_budget,
    }
    for key, value in positive.items():
        if value is not None and value < 1:
            raise UserError(f"{key} is {value}; it must be at least 1")
    for key in ("serving_prompts", "serving_batches"):
        values: list[int] = getattr(config.evaluation, key)
        if any(value < 1 for value in values) or len(set(values)) < len(values):
            raise UserError(f"evaluation.{key} is {values}; give numbers from 1 on, each once")
    if config.evaluation.serving_prompts and not config.evaluation.serving_batches:
        raise UserError("evaluation.serving_batches is []; give numbers from 1 on, each once")
    _check_training(config.recovery)
    if not 0 <= config.outlier_fraction < 1:
        raise UserError(f"outlier_fraction is {config.outlier_fraction:g}; it must be in [0, 1)")
    for key, number in (
        ("method.damping", config.method.damping),
        ("method.refine_steps", config.method.refine_steps),
        ("method.correction", config.method.correction),
        ("method.allocation_spread", config.method.allocation_spread),
        ("method.reconstruction_steps", config.method.reconstruction_steps),
        ("method.reconstruction_rate", config.method.reconstruction_rate),
        ("recovery.distillation", config.recovery.distillation),
        ("hidden_memory", config.hidden_memory),
    ):
        if number < 0:
            raise UserError(f"{key} is {number:g}; it must not be negative")
    _check_choice("precision", config.precision, ("float32", "float64"))
    _check_choice(
        "method.reconstruction_precision",
        config.method.reconstruction_precision,
        ("float32", "bfloat16"),
    )
    _check_choice("model.rare_experts", config.model.rare_experts, ("error", "magnitude"))
    _check_choice("tracking.mode", config.tracking.mode, ("offline", "online", "disabled"))
    _check_choice("evaluation.quantization", config.evaluation.quantization, QUANTIZATIONS)
    _check_choice("outlier_score", config.outlier_score, ("exact", "separable"))
    _check_choice("method.allocation", config.method.allocation, ALLOCATIONS)
    _check_choice("method.allocation_unit", config.method.allocation_unit, ("block", "layer"))
    _check_choice("method.order", config.method.order, ("block", "sublayer"))
    if not re.fullmatch(r"auto|cpu|(cuda|xpu|mps)(:\d+)?", config.device):
        raise UserError(
            f"device is {config.device!r}; expected auto, cpu or an accelerator: cuda, cuda:1, "
            "xpu, mps"
        )
    return config


def choices_of(config: Config) -> Choices:
    """Method and pattern of a configuration, parsed.

    Raises:
        UserError: they do not exist or do not go together.
    """
    method = config.method
    if config.dense:
        return Choices(config, None, None)
    try:
        pattern = parse_pattern(config.pattern)
        composed = compose_method(method.name, pattern, method.metric, method.scope, method.update)
        if composed.update == "alternating":
            Alternation(method.iterations, method.penalty, method.schedule)
    except PruningError as error:
        raise UserError(str(error)) from error
    return Choices(config, composed, pattern)


def _check_source(key: str, source: str, known: Sequence[str]) -> None:
    if source not in known:
        raise UserError(f"{key}: unknown {source!r}; known are {', '.join(known)}")


def _check_training(recovery: RecoveryConfig) -> None:
    _check_choice("recovery.weights", recovery.weights, ("all", "lora"))
    if not 0 < recovery.learning_rate < math.inf:
        raise UserError(f"recovery.learning_rate is {recovery.learning_rate:g}; it must be above 0")
    if recovery.forward_batch and recovery.batch_size % recovery.forward_batch:
        raise UserError(
            f"recovery.forward_batch is {recovery.forward_batch}; it must divide "
            f"recovery.batch_size, {recovery.batch_size}"
        )


def _check_package(model: ModelConfig) -> None:
    """Check that a model in a package is pinned: the wheel for its download, the file by itself."""
    if model.package is None:
        return
    if not re.fullmatch(PACKAGE, model.package):
        raise UserError(
            f"model.package is {model.package!r}; expected <name>==<version> --hash=sha256:<hash>"
        )
    if not re.fullmatch("[0-9a-f]{64}", model.gguf or ""):
        raise UserError(f"model.gguf is {model.gguf!r}; expected the sha256 of {model.path}")


def _check_choice(key: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(f"{key} is {value!r}; expected {', '.join(known)}")
