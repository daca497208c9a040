"""What stands behind a spec's names today: code, libraries, and contents that only names tell.

A fingerprint enters the rules as a parameter, so that Snakemake makes again what has changed, and
the record of what was made, so that a reader can see why. What a spec holds by content (a local
model, a text) is in its identity and needs no fingerprint.
"""

import functools
import glob
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..content import file_hash
from ..data.sources import corpus_packages, public_file
from ..errors import UserError
from ..models.location import hub_commit, mirrored_folder
from ..testbed.continuations import TASKS_FOLDER
from .code import changed_modules, source_hashes
from .inputs import CalibrationSpec, ModelSpec, TextSpec, WindowsSpec
from .models import description_hash, weights_hash
from .place import Place
from .spec import Spec, digest
from .specs import EvaluationSpec, LatencySpec, PruningSpec, RecoverySpec

_TOKENS = ("tokenizers", "transformers")
_TENSORS = ("numpy", "safetensors", "torch", "transformers")
_TASKS = (*_TENSORS, "datasets", "lm-eval", "tokenizers")
_GGUF = (*_TENSORS, "gguf", "tokenizers")
_TRAINING = (*_TENSORS, "accelerate")
_FRAMES = ("numpy", "pandas")
# Of the stages that make nothing of a spec.
_LIBRARIES = {
    "collect": _FRAMES,
    "continuations": corpus_packages(),
    "plot": (*_FRAMES, "matplotlib", "scipy"),
    "report": (*_FRAMES, "jinja2", "scipy"),
    "tabulate": (*_FRAMES, "jinja2", "scipy"),
    "timing": _TENSORS,
    "train_testbed": (*_TENSORS, "tokenizers", *corpus_packages()),
}
# What walking a model imports for who prunes it, and nobody else runs.
_PRUNING = ("thanos.pruning.statistics",)


@dataclass(frozen=True)
class Fingerprint:
    """Of everything but the spec that a result depends on, each by its name.

    Attributes:
        code: hashes of the project's modules.
        libraries: versions.
        inputs: commits and contents.
    """

    code: dict[str, str]
    libraries: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    def parameters(self) -> list[str]:
        """The same in three short texts, for a rule."""
        return [f"{name} {digest(values)}" for name, values in asdict(self).items() if values]

    def causes(self, spec: Spec) -> dict[str, Any]:
        """All that an unfinished result depends on, by names for a message; no part is the place.

        Args:
            spec: of the result, whose fingerprint this is.
        """
        found: dict[str, Any] = dict(spec.identity())
        for kind, values in asdict(self).items():
            found |= {f"{kind}.{name}": value for name, value in values.items()}
        return found

    def differences(self, recorded: dict[str, dict[str, str]]) -> list[str]:
        """Names of what is no longer as it was recorded; a record may have more inputs."""
        found = []
        for kind, today in asdict(self).items():
            before = recorded.get(kind, {})
            names = today if kind == "inputs" else {**before, **today}
            found += [name for name in sorted(names) if before.get(name) != today.get(name)]
        return found


def fingerprint(spec: Spec, place: Place) -> Fingerprint:
    """The fingerprint of what a stage makes of `spec`.

    Args:
        spec: of tokens, windows, a pruned or trained model, a latency, an evaluation or a part of
            one, or a model in a GGUF file.
        place: where the models and texts that are not local lie.
    """
    return _OF[type(spec)](spec, place)


def stage_fingerprint(stage: str) -> Fingerprint:
    """The fingerprint of what a stage makes without a spec, of other results say."""
    versions = _versions(*_LIBRARIES.get(stage, _TENSORS))
    return Fingerprint(source_hashes(f"thanos.stages.{stage}"), versions)


def changed_since(recorded: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Names of the modules and libraries of a recorded fingerprint that are others today."""
    before = recorded.get("libraries", {})
    today = _versions(*before)
    other = sorted(name for name, version in before.items() if today.get(name) != version)
    return [*changed_modules(recorded.get("code", {})), *other]


def _of_model(spec: ModelSpec, place: Place) -> Fingerprint:
    return Fingerprint(source_hashes("thanos.stages.dequantize"), _versions(*_GGUF))


def _of_calibration(spec: CalibrationSpec, place: Place) -> Fingerprint:
    text, packages = _text(spec.text, "calibration", place)
    return Fingerprint(
        source_hashes("thanos.stages.calibrate"),
        _versions(*_TOKENS, *packages),
        {**_tokenizer(spec.model, place), **text},
    )


def _of_windows(spec: WindowsSpec, place: Place) -> Fingerprint:
    text, packages = _text(spec.text, "evaluation", place)
    return Fingerprint(
        source_hashes("thanos.stages.corpora"),
        _versions(*_TOKENS, *packages),
        {**_tokenizer(spec.model, place), **text},
    )


def _of_pruning(spec: PruningSpec, place: Place) -> Fingerprint:
    # By error, layers are refined in order to measure.
    refined = spec.refine_steps or spec.allocation == "error"
    unused = spec.method.modules_unused(spec.pattern, refined, spec.correction)
    modules = {f"thanos.pruning.{name}" for name in unused}
    if not spec.reconstruction_steps:
        modules.add("thanos.models.reconstruction")
    if not spec.channel_permutation:
        modules |= {"thanos.models.channels", "thanos.pruning.permutation"}
    if spec.allocation == "uniform":
        modules |= {"thanos.layer_patterns", "thanos.models.survey", "thanos.pruning.allocation"}
    if spec.mask is None:
        modules.add("thanos.models.given_masks")
    code = source_hashes("thanos.stages.prune", modules)
    return Fingerprint(code, _versions(*_TENSORS), _model(spec.model, place))


def _of_recovery(spec: RecoverySpec, place: Place) -> Fingerprint:
    lora = spec.weights == "lora"
    # Of the stage that prunes it takes how memory is measured.
    unused = (*_PRUNING, "thanos.stages.prune", *(() if lora else ("thanos.recovery.adapters",)))
    code = source_hashes("thanos.stages.recover", unused)
    libraries = _versions(*_TRAINING, *(("peft",) if lora else ()))
    return Fingerprint(code, libraries, _model(spec.base, place))


def _of_latency(spec: LatencySpec, place: Place) -> Fingerprint:
    code = source_hashes("thanos.stages.efficiency", _PRUNING)
    return Fingerprint(code, _versions(*_TENSORS), _model(spec.pruning.model, place))


def _of_evaluation(spec: EvaluationSpec, place: Place) -> Fingerprint:
    unused = {*_PRUNING}
    if not spec.tasks:
        unused.add("thanos.evaluation.zero_shot")
    if not spec.windows:
        unused.add("thanos.evaluation.perplexity")
    if not spec.divergence:
        unused.add("thanos.evaluation.divergence")
    if not spec.windows and not spec.tasks:
        unused.add("thanos.models.forward")
    libraries = _versions(*(_TASKS if spec.tasks else _TENSORS))
    code = source_hashes("thanos.stages.evaluate", unused)
    reads_dense = spec.divergence or spec.pruning is None
    inputs = _model(spec.base, place) if reads_dense else {}
    for task in spec.tasks:
        inputs |= _task(task, place)
    return Fingerprint(code, libraries, inputs)


_OF: dict[type[Spec], Callable[[Any, Place], Fingerprint]] = {
    ModelSpec: _of_model,
    CalibrationSpec: _of_calibration,
    WindowsSpec: _of_windows,
    PruningSpec: _of_pruning,
    RecoverySpec: _of_recovery,
    LatencySpec: _of_latency,
    EvaluationSpec: _of_evaluation,
}


@functools.cache
def _versions(*packages: str) -> dict[str, str]:
    return {package: _version(package) for package in sorted(set(packages))}


def _version(package: str) -> str:
    try:
        found = version(package)
    except PackageNotFoundError:
        return "not installed"
    return re.sub(r"\+.*", "", found)  # builds for CPU and CUDA are one version; devices are told


def _model(spec: ModelSpec, place: Place) -> dict[str, str]:
    return _behind(spec, place, lambda folder: f"{description_hash(folder)}{weights_hash(folder)}")


def _tokenizer(spec: ModelSpec, place: Place) -> dict[str, str]:
    return _behind(spec, place, description_hash)


def _behind(spec: ModelSpec, place: Place, content: Callable[[Path], str]) -> dict[str, str]:
    """What a model that is no folder is today.

    On the hub the commit, or the content of its folder in the mirror. Of a GGUF file what makes
    safetensors of it: that is known before they are made.
    """
    name = f"model {spec.path}"
    if spec.gguf is not None:
        return {name: digest(asdict(fingerprint(spec, place)))}
    if not spec.on_hub:
        return {}
    if place.mirror is None:
        return {name: hub_commit(spec.path, spec.revision) or "not on this machine"}
    folder = mirrored_folder(Path(place.mirror), spec.path, spec.revision)
    return {name: digest(content(folder)) if folder.is_dir() else "not in the mirror"}


def _text(spec: TextSpec, use: str, place: Place) -> tuple[dict[str, str], tuple[str, ...]]:
    """What a source's text is today, and the packages that it is taken from."""
    if spec.path is not None:
        return {}, ()
    try:
        found = public_file(spec.source, use, place.mirror)
    except UserError:
        found = "not in the mirror"
    if found is None:
        return {}, corpus_packages()
    return {f"text {spec.source}": file_hash(found) if isinstance(found, Path) else found}, ()


def _task(task: str, place: Place) -> dict[str, str]:
    from ..evaluation.benchmarks import FOLDER, file_of_task, task_file

    if (own := file_of_task(TASKS_FOLDER, task, ".yaml")).is_file():
        return {f"task {task}": file_hash(own)}
    file = None if place.mirror is None else task_file(task, Path(place.mirror))
    if place.mirror is not None and file is None:  # a group, whose tasks have files of their own
        files = sorted(Path(place.mirror).glob(f"{FOLDER}/{glob.escape(task)}*.jsonl"))
        found = digest([file_hash(one) for one in files]) if files else "not in the mirror"
        return {f"task {task}": found}
    return {f"task {task}": file_hash(file) if file else "of the hub"}
