"""A run: a configuration as the specs of what is to be made, the place, and what it is called."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..content import file_hash
from ..data.availability import corpus_can_be_had
from ..data.files import check_file
from ..errors import UserError
from ..evaluation.benchmarks import task_file
from ..identity import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    ModelSpec,
    Place,
    PruningSpec,
    RecoverySpec,
    TextSpec,
    WindowsSpec,
)
from ..identity.models import channels_moved, local_model
from ..identity.spec import digest, slug
from ..layout import CHECKPOINT
from ..models.location import is_hub_id
from ..models.wheels import GGUF
from ..paths import expanded, model_folder
from ..pruning.composition import default_block_size
from .checks import choices_of
from .columns import columns_of
from .schema import Config, EvaluationConfig, ModelConfig, TrackingConfig
from .usage import Choices


@dataclass(frozen=True)
class Run:
    """One point of an experiment: a pruned, or a dense, model and an evaluation of it.

    Attributes:
        evaluation: what is measured, of which model.
        latency: what is timed besides; None if nothing.
        columns: what tables call it and sort it by.
        place: where and how it is computed.
        tracking: where it is logged.
        overrides: that compose it again, without those of the place.
        absent: optional corpora and tasks that cannot be had here, so that they are not measured.
    """

    evaluation: EvaluationSpec
    latency: LatencySpec | None
    columns: dict[str, Any]
    place: Place
    tracking: TrackingConfig
    overrides: tuple[str, ...]
    absent: tuple[str, ...] = ()

    @property
    def pruning(self) -> PruningSpec | None:
        """The pruned model; None for the dense one."""
        return self.evaluation.pruning

    @property
    def recovery(self) -> RecoverySpec | None:
        """The model that was trained afterwards, if that is what is evaluated."""
        return self.evaluation.recovery

    def called(self, label: str) -> "Run":
        """The same run, with another label of its method."""
        if label == self.columns["label"]:
            return self
        columns = {**self.columns, "label": label}
        return replace(self, columns=columns, overrides=(*self.overrides, f"method.label={label}"))

    @cached_property
    def name(self) -> str:
        """`<model>/<pattern>/<method>-<hash>`, what tables and trackers know it by."""
        called = {key: self.columns[key] for key in ("model", "pattern", "label")}
        where = "/".join((called["model"], slug(called["pattern"]), called["label"]))
        return f"{where}-{digest([self.evaluation.id, *called.values()])[:8]}"


@dataclass
class RunBuilder:
    """Makes runs of configurations; reads every model and text once for all of them."""

    models: dict[tuple[str, bool], ModelSpec] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # hashes

    def run(self, config: Config, overrides: Sequence[str] = ()) -> Run:
        """The run of a checked configuration.

        Raises:
            UserError: a local model or text that it names cannot be read.
        """
        choices = choices_of(config)
        model = self.model(config.model)
        pruning = self._pruning(choices, model)
        recovery = self._recovery(choices, pruning or model)
        evaluation, place = config.evaluation, place_of(config)
        corpora, tasks = measured(evaluation, place.mirror)
        optional = (*evaluation.optional_corpora, *evaluation.optional_tasks)
        spec = EvaluationSpec(
            model=recovery or pruning or model,
            windows=tuple(
                WindowsSpec(
                    model,
                    self._text(corpus, evaluation.path if corpus == "text" else None, "evaluation"),
                    config.model.context,
                    evaluation.max_windows,
                    add_bos=config.model.add_bos,
                )
                for corpus in corpora
            ),
            tasks=tasks,
            limit=evaluation.limit if tasks else None,
            quantization=evaluation.quantization,
            dense_skip=tuple(config.model.skip) if choices.quantizes_dense else (),
            divergence=evaluation.divergence and bool(corpora) and choices.differs_from_dense,
        )
        latency = None
        if pruning is not None and evaluation.efficiency:
            prompts = tuple(evaluation.serving_prompts)
            batches = tuple(evaluation.serving_batches) if prompts else ()
            latency = LatencySpec(pruning, config.model.context, prompts, batches)
        return Run(
            evaluation=spec,
            latency=latency,
            columns=columns_of(config, pruning, recovery),
            place=place,
            tracking=config.tracking,
            overrides=tuple(overrides),
            absent=tuple(name for name in optional if name not in (*corpora, *tasks)),
        )

    def _pruning(self, choices: Choices, model: ModelSpec) -> PruningSpec | None:
        if choices.method is None or choices.pattern is None:
            return None
        text = None
        if choices.calibrated:
            source = choices.config.calibration
            path = source.path if choices.calibrates_on_file else None
            text = self._text(source.source, path, "calibration")
        return pruning_spec(choices, model, text)

    def _recovery(self, choices: Choices, before: PruningSpec | ModelSpec) -> RecoverySpec | None:
        if not choices.recovered:
            return None
        config, given = choices.config, choices.config.recovery
        path = given.path if choices.trains_on_file else None
        return RecoverySpec(
            model=before,
            text=CalibrationSpec(
                before if isinstance(before, ModelSpec) else before.model,
                self._text(given.source, path, "recovery"),
                given.context or config.model.context,
                given.steps * given.batch_size,
                config.seed,
                add_bos=config.model.add_bos,
            ),
            weights=given.weights,
            rank=given.rank if given.weights == "lora" else None,
            steps=given.steps,
            batch_size=given.batch_size,
            learning_rate=given.learning_rate,
            distillation=given.distillation,
        )

    def model(self, given: ModelConfig) -> ModelSpec:
        """The spec of a model as it is stored.

        Raises:
            UserError: it is neither on this machine nor an id of the hub.
        """
        if given.package is not None:
            return ModelSpec(given.path, gguf=given.gguf, package=given.package)
        file = expanded(given.path).absolute()
        if file.suffix == GGUF and file.is_file():
            return ModelSpec(str(file), gguf=self._hash(file))
        folder = model_folder(given.path)
        if folder is None:
            if not is_hub_id(given.path):
                kind = "is a file" if expanded(given.path).exists() else "does not exist"
                raise UserError(
                    f"model.path: model folder {given.path} {kind}; give an existing folder, a "
                    f"{GGUF} file or a hub id such as facebook/opt-125m"
                )
            return ModelSpec(given.path, given.revision, given.trust_remote_code)
        key = (str(folder), given.trust_remote_code)
        if key not in self.models:
            if not (folder / "config.json").is_file():
                raise UserError(f"{folder} is not a model folder: it has no config.json")
            self.models[key] = local_model(*key)
        return self.models[key]

    def _text(self, source: str, path: str | None, use: str) -> TextSpec:
        if path is None:
            return TextSpec(source)
        check_file(expanded(path), f"{use}.path")
        file = expanded(path).absolute()
        return TextSpec(source, str(file), self._hash(file))

    def _hash(self, file: Path) -> str:
        if str(file) not in self.files:
            self.files[str(file)] = file_hash(file)
        return self.files[str(file)]


def pruning_spec(choices: Choices, model: ModelSpec, text: TextSpec | None) -> PruningSpec:
    """The spec of the model that these choices, which prune, make of another.

    Args:
        choices: with a method.
        model: to prune.
        text: to calibrate on; None without calibration.
    """
    config, method, pattern = choices.config, choices.method, choices.pattern
    assert method is not None
    assert pattern is not None
    given, calibration = config.method, None
    if text is not None:
        calibration = CalibrationSpec(
            model,
            text,
            config.model.context,
            config.calibration.windows,
            config.seed,
            add_bos=config.model.add_bos,
        )
    block_size = given.block_size or default_block_size(pattern)
    return PruningSpec(
        model=model,
        calibration=calibration,
        method=method,
        pattern=pattern,
        outlier_fraction=0.0 if choices.masked else config.outlier_fraction,
        outlier_score=config.outlier_score if choices.ranks_rows else None,
        block_size=block_size if method.walks_blocks(pattern, choices.masked) else None,
        damping=given.damping if choices.damped else None,
        refine_steps=given.refine_steps,
        iterations=given.iterations if choices.alternating else None,
        penalty=given.penalty if choices.alternating else None,
        schedule=given.schedule if choices.alternating else None,
        order=given.order if choices.calibrated else "block",
        correction=given.correction,
        mask=None if given.mask is None else _mask_of(given.mask),
        channel_permutation=choices.permutes,
        allocation=given.allocation if choices.allocates else "uniform",
        allocation_spread=given.allocation_spread if choices.allocates else None,
        allocation_unit=given.allocation_unit if choices.allocates else None,
        reconstruction_steps=given.reconstruction_steps,
        reconstruction_rate=given.reconstruction_rate if choices.reconstructs else None,
        reconstruction_batch=given.reconstruction_batch if choices.reconstructs else None,
        reconstruction_precision=(
            given.reconstruction_precision if choices.reconstructs else "float32"
        ),
        precision=config.precision,
        layer_errors=config.layer_errors,
        skip=tuple(config.model.skip),
        rare_experts=config.model.rare_experts,
    )


def measured(
    evaluation: EvaluationConfig, mirror: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The corpora and tasks to measure: those asked for, and optional ones that can be had."""
    corpora, tasks = [*evaluation.corpora], [*evaluation.tasks]
    corpora += [c for c in evaluation.optional_corpora if corpus_can_be_had(c, mirror)]
    if mirror is not None:
        tasks += [t for t in evaluation.optional_tasks if task_file(t, Path(mirror)) is not None]
    return tuple(dict.fromkeys(corpora)), tuple(dict.fromkeys(tasks))


def _mask_of(path: str) -> ModelSpec:
    """The pruned model in the folder of a run, or in a folder of its own."""
    folder = expanded(path).absolute()
    found = [each for each in (folder / CHECKPOINT, folder) if (each / "config.json").is_file()]
    if not found:
        raise UserError(
            f"method.mask: {path} holds no pruned model; give the folder of a run that is "
            "finished, or of a checkpoint"
        )
    if channels_moved(found[0]):
        raise UserError(
            f"method.mask: in {path} channels changed places, so that its columns are not those "
            "of the model to prune; give one pruned without method.channel_permutation"
        )
    return local_model(str(found[0]), False)


def place_of(config: Config) -> Place:
    """Where and how a configuration computes."""
    return Place(
        device=config.device,
        mirror=config.mirror and str(expanded(config.mirror).absolute()),
        models_dir=config.models_dir,
        model_file=config.model.file and str(expanded(config.model.file).absolute()),
        memory_budget=config.memory_budget,
        hidden_memory=config.hidden_memory,
        overlap=config.overlap,
        calibration_batch=config.calibration.batch_size,
        recovery_batch=config.recovery.forward_batch,
        evaluation_batch=config.evaluation.batch_size,
        task_batch=config.evaluation.task_batch_size,
    )


# Keys of a configuration that are the place's.
PLACE_KEYS = (
    *("device", "mirror", "memory_budget", "hidden_memory", "overlap", "output_dir", "models_dir"),
    "model.file",
    *("calibration.batch_size", "evaluation.batch_size", "evaluation.task_batch_size"),
    "recovery.forward_batch",
    *("tracking", "tracking.mode", "tracking.project"),
)
