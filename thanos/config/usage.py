"""Which keys the choices of a configuration use: one table, for runs by hand and for suites.

A key that nothing reads would change no result, only the reader's belief: typed for a run, or named
in a block of a suite, it is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from ..data.sources import CALIBRATION
from ..paths import expanded, model_folder
from ..pruning.composition import Method
from ..pruning.patterns import Pattern, SemiStructured, Unstructured
from .schema import NO_RECOVERY, Config, RecoveryConfig


@dataclass(frozen=True)
class Choices:
    """What of a configuration decides about its other keys.

    Attributes:
        config: checked.
        method: metric × scope × update; None for the dense model.
        pattern: None for the dense model.
    """

    config: Config
    method: Method | None
    pattern: Pattern | None

    @property
    def calibrated(self) -> bool:
        """Whether calibration tokens are used: by the method, the outlier rows or the record."""
        method, config = self.method, self.config
        if method is None:
            return False
        by_method = method.needs_factor or method.metric == "wanda" or config.method.refine_steps
        others = config.method.correction or config.outlier_fraction or config.layer_errors
        return bool(by_method or others or self.reconstructs or self.allocates)

    @property
    def damped(self) -> bool:
        """Whether a Gram matrix is factorised."""
        factor = self.method is not None and self.method.needs_factor
        return factor or self.config.method.correction > 0

    @property
    def masked(self) -> bool:
        """Whether what is removed is given."""
        return self.config.method.mask is not None

    @property
    def ranks_rows(self) -> bool:
        """Whether outlier rows are chosen."""
        return self.config.outlier_fraction > 0 and not self.masked

    @property
    def permutes(self) -> bool:
        """Whether input channels may change places."""
        return self.may_permute and self.config.method.channel_permutation

    @property
    def may_permute(self) -> bool:
        """Whether they could: groups of an n:m pattern are chosen in."""
        return isinstance(self.pattern, SemiStructured) and not self.masked

    @property
    def allocates(self) -> bool:
        """Whether layers get sparsities of their own."""
        named = self.method is not None and self.config.method.allocation != "uniform"
        return named and self.may_allocate

    @property
    def may_allocate(self) -> bool:
        """Whether they could: unstructured layers any, those of mixed n:m another n."""
        mixed = self.config.method.allocation_mixed and self.may_mix
        return mixed or (isinstance(self.pattern, Unstructured) and not self.masked)

    @property
    def may_mix(self) -> bool:
        """Whether layers could have another n of the same m: of 1:m and m-1:m there is none."""
        mixable = isinstance(self.pattern, SemiStructured) and self.pattern.mixes
        return mixable and not self.masked

    @property
    def reconstructs(self) -> bool:
        """Whether pruned blocks are trained."""
        return self.method is not None and self.config.method.reconstruction_steps > 0

    @property
    def alternating(self) -> bool:
        """Whether mask and weights move together."""
        return self.method is not None and self.method.update == "alternating"

    @property
    def quantizes_dense(self) -> bool:
        """Whether the weights of the model as it is stored are rounded."""
        return self.method is None and self.config.evaluation.quantization != "none"

    @property
    def differs_from_dense(self) -> bool:
        """Whether what is evaluated is another model than the one that is stored."""
        return self.method is not None or self.quantizes_dense or self.recovered

    @property
    def recovered(self) -> bool:
        """Whether the model is trained after it was pruned."""
        return self.config.recovery.name != NO_RECOVERY

    @property
    def trains_on_file(self) -> bool:
        """Whether the text to train on is one that can be read from a file."""
        return _reads_file(self.config.recovery.source)

    @property
    def calibrates_on_file(self) -> bool:
        """Whether the calibration's source is one that can be read from a file."""
        return _reads_file(self.config.calibration.source)

    @property
    def on_hub(self) -> bool:
        """Whether the model is looked up on the hub: it is no folder, no file and in no package."""
        model = self.config.model
        local = model_folder(model.path) or expanded(model.path).is_file()
        return model.package is None and not local

    @property
    def pruning(self) -> str:
        """Method and pattern, for messages."""
        label = f"method {self.config.method.label}"
        return label if self.pattern is None else f"{label} with pattern {self.pattern}"


@dataclass(frozen=True)
class Use:
    """When some keys are used.

    Attributes:
        keys: of the configuration.
        by: whether these choices use them.
        choice: which choice does not, for the message.
    """

    keys: tuple[str, ...]
    by: Callable[[Choices], bool]
    choice: Callable[[Choices], str]


def _reads_file(source: str) -> bool:
    return source in ("text", *CALIBRATION)


def _uncalibrated(choices: Choices) -> str:
    return choices.pruning + ("" if choices.method is None else " and layer_errors=false")


def _mask_or_pruning(choices: Choices) -> str:
    return f"method.mask={choices.config.method.mask}" if choices.masked else choices.pruning


def _not_allocated(choices: Choices) -> str:
    unmixed = " and method.allocation_mixed=false" if choices.may_mix else ""
    return _mask_or_pruning(choices) + unmixed


USES = (
    Use(
        (
            *("pattern", "outlier_fraction", "outlier_score", "precision", "layer_errors"),
            *("method.block_size", "method.damping", "method.refine_steps", "method.metric"),
            *("method.scope", "method.update", "method.order", "method.correction", "method.mask"),
            *("method.reconstruction_steps", "method.channel_permutation"),
            *("method.allocation", "method.allocation_mixed"),
            *("model.rare_experts", "evaluation.efficiency"),
            *("evaluation.serving_prompts", "evaluation.serving_batches"),
        ),
        lambda choices: choices.method is not None,
        lambda choices: choices.pruning,
    ),
    Use(
        ("model.skip",),
        lambda choices: choices.method is not None or choices.quantizes_dense,
        lambda choices: choices.pruning,
    ),
    Use(
        ("method.block_size",),
        lambda choices: (
            choices.method is None
            or choices.pattern is None
            or choices.method.walks_blocks(choices.pattern, choices.masked)
        ),
        lambda choices: choices.pruning,
    ),
    Use(
        ("method.damping",),
        lambda choices: choices.method is None or choices.damped,
        lambda choices: choices.pruning,
    ),
    Use(
        ("method.iterations", "method.penalty", "method.schedule"),
        lambda choices: choices.alternating,
        lambda choices: choices.pruning,
    ),
    Use(
        ("method.allocation",),
        lambda choices: choices.pattern is None or choices.may_allocate,
        _not_allocated,
    ),
    Use(
        ("method.allocation_mixed",),
        lambda choices: choices.may_mix,
        _mask_or_pruning,
    ),
    Use(
        ("method.channel_permutation",),
        lambda choices: choices.pattern is None or choices.may_permute,
        _mask_or_pruning,
    ),
    Use(
        ("method.allocation_spread", "method.allocation_unit", "method.allocation_mixed"),
        lambda choices: choices.allocates,
        lambda choices: f"{choices.pruning} and method.allocation=uniform",
    ),
    Use(
        (
            *("method.reconstruction_rate", "method.reconstruction_batch"),
            "method.reconstruction_precision",
        ),
        lambda choices: choices.reconstructs,
        lambda choices: f"{choices.pruning} and method.reconstruction_steps=0",
    ),
    Use(
        ("method.scope", "outlier_fraction", "outlier_score"),
        lambda choices: not choices.masked,
        lambda choices: f"method.mask={choices.config.method.mask}",
    ),
    Use(
        ("method.metric",),
        lambda choices: not choices.masked or choices.alternating,
        lambda choices: f"method.mask={choices.config.method.mask}",
    ),
    Use(
        ("method.order",),
        lambda choices: choices.method is None or choices.calibrated,
        lambda choices: f"{choices.pruning} and layer_errors=false",
    ),
    Use(
        ("method.scope",),
        lambda choices: choices.pattern is None or isinstance(choices.pattern, Unstructured),
        lambda choices: choices.pruning,
    ),
    Use(
        ("outlier_score",),
        lambda choices: choices.method is None or choices.config.outlier_fraction > 0,
        lambda choices: "outlier_fraction=0",
    ),
    Use(
        (
            *("calibration.source", "calibration.windows", "calibration.path"),
            "calibration.batch_size",
        ),
        lambda choices: choices.calibrated,
        _uncalibrated,
    ),
    Use(("seed",), lambda choices: choices.calibrated or choices.recovered, _uncalibrated),
    Use(
        tuple(f"recovery.{field.name}" for field in fields(RecoveryConfig)),
        lambda choices: choices.recovered,
        lambda choices: f"recovery={NO_RECOVERY}",
    ),
    Use(
        ("recovery.rank",),
        lambda choices: choices.config.recovery.weights == "lora",
        lambda choices: f"recovery.weights={choices.config.recovery.weights}",
    ),
    Use(
        ("recovery.path",),
        lambda choices: choices.trains_on_file,
        lambda choices: f"recovery source {choices.config.recovery.source}",
    ),
    Use(
        ("calibration.path",),
        lambda choices: choices.calibrates_on_file,
        lambda choices: f"calibration source {choices.config.calibration.source}",
    ),
    Use(
        ("model.add_bos",),
        lambda choices: (
            choices.calibrated
            or bool(choices.config.evaluation.corpora or choices.config.evaluation.optional_corpora)
        ),
        lambda choices: (
            f"evaluation {choices.config.evaluation.name}, which has no corpus, without calibration"
        ),
    ),
    Use(
        ("model.gguf", "model.file"),
        lambda choices: choices.config.model.package is not None,
        lambda choices: f"model {choices.config.model.name}, which is in no package",
    ),
    Use(
        ("model.revision",),
        lambda choices: choices.on_hub,
        lambda choices: f"model.path={choices.config.model.path}, which is not on the hub",
    ),
    Use(
        ("evaluation.path",),
        lambda choices: "text" in choices.config.evaluation.corpora,
        lambda choices: f"evaluation {choices.config.evaluation.name}",
    ),
    Use(
        ("evaluation.serving_prompts", "evaluation.serving_batches"),
        lambda choices: choices.config.evaluation.efficiency,
        lambda choices: "evaluation.efficiency=false",
    ),
    Use(
        ("evaluation.serving_batches",),
        lambda choices: bool(choices.config.evaluation.serving_prompts),
        lambda choices: "evaluation.serving_prompts=[]",
    ),
    Use(
        ("evaluation.max_windows", "evaluation.batch_size", "evaluation.divergence"),
        lambda choices: bool(
            choices.config.evaluation.corpora or choices.config.evaluation.optional_corpora
        ),
        lambda choices: f"evaluation {choices.config.evaluation.name}, which has no corpus",
    ),
    Use(
        ("evaluation.divergence",),
        lambda choices: choices.differs_from_dense,
        lambda choices: f"{choices.pruning}, which is the dense model itself",
    ),
    Use(
        ("evaluation.limit", "evaluation.task_batch_size"),
        lambda choices: bool(
            choices.config.evaluation.tasks or choices.config.evaluation.optional_tasks
        ),
        lambda choices: f"evaluation {choices.config.evaluation.name}, which has no task",
    ),
)


def unused_keys(choices: Choices) -> dict[str, str]:
    """The keys that the choices do not use, each with the choice that has no use for it."""
    found: dict[str, str] = {}
    for use in USES:
        if not use.by(choices):
            found |= {key: use.choice(choices) for key in use.keys if key not in found}
    return found
