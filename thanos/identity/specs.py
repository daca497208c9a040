"""What is made, each of exactly its spec: pruned and trained models, evaluations, latencies.

The same thing in two suites is one thing.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..pruning.composition import METHODS, Alternation, Method, compose
from ..pruning.patterns import Pattern, Unstructured
from .inputs import DENSE, CalibrationSpec, ModelSpec, WindowsSpec
from .spec import Spec


@dataclass(frozen=True)
class PruningSpec(Spec):
    """A pruned model. What its choices do not use is None; see `thanos.config.usage`.

    Attributes:
        model: to prune.
        calibration: its tokens; None if neither the method nor the record needs them.
        method: metric × scope × update, whatever it is called.
        pattern: parsed.
        outlier_fraction: α.
        outlier_score: how outlier rows are ranked; None without any.
        block_size: B.
        damping: λ.
        refine_steps: conjugate gradient steps after pruning.
        iterations: of the alternating update.
        penalty: ρ of the alternating update.
        schedule: iterations of it over which the sparsity rises.
        order: whose inputs a layer is calibrated on, within a block.
        correction: β, how far the targets go towards the dense model's outputs.
        mask: a pruned model whose zeros are removed, in place of a choice by metric and scope.
        channel_permutation: whether input channels change places between groups of n:m.
        allocation: of the sparsity over layers: uniform, owl or error.
        allocation_spread: λ, how far densities lie apart.
        allocation_unit: block or layer, whose sparsity is one.
        reconstruction_steps: to train each pruned block for the dense model's outputs.
        reconstruction_rate: learning rate of the first of these steps.
        reconstruction_batch: windows per step.
        reconstruction_precision: float32 or bfloat16, of the products of these steps.
        precision: float32 or float64, of the pruning mathematics.
        layer_errors: whether every layer's relative error is recorded.
        skip: layers left dense on purpose.
        rare_experts: what to do with experts that saw too few tokens.
    """

    model: ModelSpec
    calibration: CalibrationSpec | None
    method: Method
    pattern: Pattern
    outlier_fraction: float = 0.0
    outlier_score: str | None = None
    block_size: int | None = None
    damping: float | None = None
    refine_steps: int = 0
    precision: str = "float32"
    layer_errors: bool = True
    skip: tuple[str, ...] = ()
    rare_experts: str = "error"
    iterations: int | None = None
    penalty: float | None = None
    schedule: int | None = None
    order: str = "block"
    correction: float = 0.0
    mask: ModelSpec | None = None
    allocation: str = "uniform"
    allocation_spread: float | None = None
    allocation_unit: str | None = None
    reconstruction_steps: int = 0
    reconstruction_rate: float | None = None
    reconstruction_batch: int | None = None
    reconstruction_precision: str = "float32"
    channel_permutation: bool = False

    @property
    def readable(self) -> str:
        """The method, by its name if it has one, and the pattern."""
        chosen = self._choices()
        named = (n for n in METHODS if self._choices(compose(n, self.pattern)) == chosen)
        name = next(named, "-".join(filter(None, chosen)))
        return f"{name if self.mask is None else f'{self.method.update}-masked'}-{self.pattern}"

    @property
    def streams(self) -> int:
        """Of hidden states: two where the dense model runs beside the pruned one."""
        return 2 if self.correction or self.reconstruction_steps else 1

    @property
    def alternation(self) -> Alternation:
        """Of the alternating update; its defaults for other methods."""
        if self.iterations is None or self.penalty is None or self.schedule is None:
            return Alternation()
        return Alternation(self.iterations, self.penalty, self.schedule)

    def identity(self) -> dict[str, Any]:
        """All that the pruned weights and their record are of."""
        return {**super().identity(), "method": self._choices()}

    @property
    def metric(self) -> str | None:
        """Of the method, if it is used."""
        return self._choices()[0]

    @property
    def scope(self) -> str | None:
        """Of the method, if it is used."""
        return self._choices()[1]

    def _choices(self, method: Method | None = None) -> list[str | None]:
        """Metric, scope and update; of the first two what is chosen by."""
        method = method or self.method
        chooses = self.mask is None
        scope = method.scope if chooses and isinstance(self.pattern, Unstructured) else None
        metric = method.metric if chooses or method.update == "alternating" else None
        return [metric, scope, method.update]


@dataclass(frozen=True)
class RecoverySpec(Spec):
    """A model that was fine-tuned, every zero of it kept.

    Attributes:
        model: pruned, or as it is stored, for what the training brings by itself.
        text: the windows it is trained on, each once; their seed is that of the training.
        weights: which are trained: all, or lora.
        rank: of the adapters of lora.
        steps: of the optimizer.
        batch_size: windows per step.
        learning_rate: the largest.
        distillation: weight of the loss's second term, the divergence from the dense model.
    """

    model: PruningSpec | ModelSpec
    text: CalibrationSpec
    weights: str
    rank: int | None
    steps: int
    batch_size: int
    learning_rate: float
    distillation: float

    @property
    def pruning(self) -> PruningSpec | None:
        """How the model was pruned; None for one that was not."""
        return self.model if isinstance(self.model, PruningSpec) else None

    @property
    def base(self) -> ModelSpec:
        """The model as it is stored, before any pruning."""
        return self.model.model if isinstance(self.model, PruningSpec) else self.model

    @property
    def skip(self) -> tuple[str, ...]:
        """Layers that pruning left as they are."""
        return () if self.pruning is None else self.pruning.skip

    @property
    def readable(self) -> str:
        """The pruned model's, and what was trained."""
        return f"{DENSE if self.pruning is None else self.pruning.readable}-{self.weights}"


@dataclass(frozen=True)
class EvaluationSpec(Spec):
    """What is measured of one model. Each part is an evaluation by itself and measured once.

    Attributes:
        model: trained after it was pruned, pruned, or as it is stored.
        windows: of every corpus whose perplexity is wanted.
        tasks: zero-shot tasks.
        limit: questions per task; None: all.
        quantization: of the linear layers' weights: none, int8 or int4.
        dense_skip: of a model as it is stored: layers that quantisation leaves. A pruned one's are
            those that pruning left.
        divergence: whether predictions on the windows are compared with the dense model's.
    """

    model: RecoverySpec | PruningSpec | ModelSpec
    windows: tuple[WindowsSpec, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    quantization: str = "none"
    dense_skip: tuple[str, ...] = ()
    divergence: bool = False

    @property
    def pruning(self) -> PruningSpec | None:
        """How the model was pruned; None for one that was not."""
        model = self.model.pruning if isinstance(self.model, RecoverySpec) else self.model
        return model if isinstance(model, PruningSpec) else None

    @property
    def recovery(self) -> RecoverySpec | None:
        """How the model was trained afterwards; None for one that was not."""
        return self.model if isinstance(self.model, RecoverySpec) else None

    @property
    def skip(self) -> tuple[str, ...]:
        """Layers left as they are, by pruning and so by quantisation too."""
        return self.dense_skip if self.pruning is None else self.pruning.skip

    @property
    def base(self) -> ModelSpec:
        """The model as it is stored, before any pruning."""
        if isinstance(self.model, RecoverySpec):
            return self.model.base
        return self.model.model if isinstance(self.model, PruningSpec) else self.model

    @property
    def readable(self) -> str:
        """What is measured if that is one thing, otherwise the model's."""
        single = [*(windows.readable for windows in self.windows), *self.tasks]
        if len(single) == 1:
            return single[0]
        return DENSE if isinstance(self.model, ModelSpec) else self.model.readable

    def parts(self) -> tuple["EvaluationSpec", ...]:
        """Each corpus and each task on its own; last the size, which is of the weights alone.

        A divergence is a part beside the perplexity on the same windows.
        """
        part = partial(
            EvaluationSpec,
            self.model,
            quantization=self.quantization,
            dense_skip=self.dense_skip,
        )
        corpora = [part(windows=(windows,)) for windows in self.windows]
        compared = [replace(each, divergence=True) for each in corpora if self.divergence]
        tasks = [part(tasks=(task,), limit=self.limit) for task in self.tasks]
        return (*corpora, *compared, *tasks, EvaluationSpec(self.model))


@dataclass(frozen=True)
class LatencySpec(Spec):
    """The latency of a pruned model beside the dense one.

    Attributes:
        pruning: of the model.
        context: tokens of the forward pass, capped by what the model supports.
        prompts: tokens of the prompts whose serving is measured; capped likewise.
        batches: how many of them are served together; none without prompts.
    """

    pruning: PruningSpec
    context: int
    prompts: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Of serving only what is measured of it."""
        values = super().identity()
        return {key: value for key, value in values.items() if value != []}

    @property
    def readable(self) -> str:
        return self.pruning.readable
