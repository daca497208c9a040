"""The memory that a spec's job will take; imports no torch, so that rules can ask as well."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.sources import evaluation_max_windows
from ..identity import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    ModelSpec,
    Place,
    PruningSpec,
    RecoverySpec,
    WindowsSpec,
)
from ..models.evaluation_plan import EvaluationPlan, Scoring, plan_evaluation, plan_latency
from ..models.location import cached_folder, weight_files
from ..models.memory_plan import MIB, MemoryPlan, Statistics, Work, plan_memory
from ..models.shapes import read_shapes
from ..models.shards import stored_tensors
from ..opening import dequantized_folder, model_location
from ..pruning.patterns import HeadsAndNeurons, Structured, Unstructured

_PROGRAM = 800 * MIB  # interpreter and libraries, of a training
_TOKENS_PER_ITEM = 1024  # of a task: all of its requests
_MOST_WINDOWS = 300  # of a corpus that does not say how many
# Of a training, per token: what a block keeps, in units of its width and of its widest layer's, and
# copies of the logits.
_BLOCK_STATES, _MLP_STATES, _LOGITS = 16, 4, 6
# Of drawing or cutting windows: interpreter and libraries, and for every byte of the longest text
# that is tokenised at once what the tokenizer keeps of it, more where every byte is a token.
_TOKENS_PROGRAM = 375 * MIB
_PER_BYTE, _PER_BYTE_TOKEN = 190, 300
_BYTE_TOKENS = 512  # no larger vocabulary consists of little but bytes
# MiB of the longest text of a source that is read from no file of the user's.
_TEXTS = {
    ("calibration", "docstrings"): 0.1,
    ("calibration", "shuffled"): 0.1,
    ("calibration", "code"): 0.3,
    ("calibration", "c4"): 0.3,
    ("calibration", "wikitext2"): 10.5,
    ("calibration", "ptb"): 4.9,
    ("evaluation", "docstrings"): 1.4,
    ("evaluation", "code"): 3.7,
    ("evaluation", "c4"): 3.0,
    ("evaluation", "wikitext2"): 1.3,
    ("evaluation", "ptb"): 0.5,
}
# Where the model is not on this machine, so that nothing is known of it.
_UNKNOWN_MB = {"prune": 16000, "recover": 64000, "evaluate": 16000, "efficiency": 32000}


@dataclass(frozen=True)
class Machine:
    """Where jobs run.

    Attributes:
        memory: bytes that a job may take there.
        gpus: whether it has one.
        gpus_per_job: that a job asks a cluster for.
    """

    memory: int
    gpus: bool
    gpus_per_job: int = 0

    def computes_on_gpu(self, place: Place) -> bool:
        """Whether a job at this place computes on an accelerator there."""
        return self.gpus and place.device != "cpu"


def plan_pruning(spec: PruningSpec, place: Place, folder: Path, *, on_device: bool) -> MemoryPlan:
    """Expected peaks of pruning the model in `folder`.

    Args:
        spec: of the pruned model.
        place: its budgets and batch size.
        folder: of the dense model.
        on_device: whether blocks are pruned on an accelerator.

    Raises:
        UserError: the folder holds no usable model.
    """
    method, calibration = spec.method, spec.calibration
    statistics: Statistics = "gram"
    if not spec.layer_errors and not method.needs_factor:
        from ..pruning import required_statistics  # imports torch

        statistics = required_statistics(
            *(method, spec.outlier_fraction, spec.refine_steps),
            *(spec.outlier_score, spec.correction),
        )
    if spec.allocation == "error":
        statistics = "gram"
    elif statistics == "none" and (spec.reconstruction_steps or spec.allocation != "uniform"):
        statistics = "diagonal"  # of its own it needs none, but the hidden states of all windows
    context = calibration.context if calibration else 0
    work = Work(
        windows=calibration.windows if calibration else 0,
        tokens=context,
        batch_size=spec.reconstruction_batch or place.calibration_windows(context),
        statistics=statistics,
        squares=_squares(spec),
        temporaries=_temporaries(spec, statistics),
        precision=8 if spec.precision == "float64" else 4,
        hidden_budget=place.hidden_budget,
        streams=spec.streams,
        compares=spec.correction > 0 and spec.order == "sublayer",
        trains=spec.reconstruction_steps > 0,
        tries=spec.allocation == "error",
        overlap=place.overlap,
    )
    return _planned(folder, work, on_device)


def tokens_mb(spec: CalibrationSpec | WindowsSpec, place: Place) -> int:
    """`mem_mb` of drawing or cutting windows.

    Raises:
        UserError: the model on this machine is not usable.
    """
    use = "calibration" if isinstance(spec, CalibrationSpec) else "evaluation"
    size = _TEXTS.get((use, spec.text.source), 0.0) * MIB
    if spec.text.path is not None and (use, spec.text.source) != ("calibration", "c4"):
        size = Path(spec.text.path).stat().st_size
    folder = model_folder(spec.model, place)
    bytes_only = folder is not None and _shapes(folder).vocabulary <= _BYTE_TOKENS
    kept = size * (_PER_BYTE_TOKEN if bytes_only else _PER_BYTE)
    return -(-int(_TOKENS_PROGRAM + kept) // MIB)


def pruning_mb(spec: PruningSpec, place: Place, machine: Machine) -> int:
    """`mem_mb` of a pruning job.

    Raises:
        UserError: the model on this machine is not usable.
    """
    folder = model_folder(spec.model, place)
    if folder is None:
        return _UNKNOWN_MB["prune"]
    plan = plan_pruning(spec, place, folder, on_device=machine.computes_on_gpu(place))
    return -(-plan.host // MIB)


def plan_scoring(
    spec: EvaluationSpec, place: Place, folder: Path, *, on_device: bool
) -> EvaluationPlan:
    """Expected peaks of evaluating the model in `folder`.

    Args:
        spec: of the evaluation.
        place: its budgets and batch sizes.
        folder: of the model, pruned or dense.
        on_device: whether it runs on an accelerator.

    Raises:
        UserError: the folder holds no usable model.
    """
    counts = [_windows(windows) for windows in spec.windows]
    context = max((windows.context for windows in spec.windows), default=0)
    work = Scoring(
        windows=max(counts, default=0),
        tokens=context,
        batch_size=place.evaluation_windows(context),
        requests=place.task_batch if spec.tasks else 0,
        total=spec.limit and spec.limit * _TOKENS_PER_ITEM,
        quantized=spec.quantization != "none",
        hidden_budget=place.hidden_budget,
        streams=2 if spec.divergence else 1,
    )
    return plan_evaluation(folder, work, on_device=on_device)


def _windows(spec: WindowsSpec) -> int:
    limits = [n for n in (spec.max_windows, evaluation_max_windows(spec.readable)) if n]
    return min(limits, default=_MOST_WINDOWS)


def evaluation_mb(spec: EvaluationSpec, place: Place, machine: Machine) -> int:
    """`mem_mb` of an evaluation, whose tasks take the whole model if the machine has the room.

    Raises:
        UserError: the model on this machine is not usable.
    """
    folder = model_folder(spec.base, place)
    if folder is None:
        return _UNKNOWN_MB["evaluate"]
    plan = plan_scoring(spec, place, folder, on_device=machine.computes_on_gpu(place))
    return -(-plan.host(machine.memory) // MIB)


def recovery_mb(spec: RecoverySpec, place: Place, machine: Machine) -> int:
    """`mem_mb` of a training: the whole model, what its optimizer keeps, and activations.

    On an accelerator the host only reads and writes the model.

    Raises:
        UserError: the model on this machine is not usable.
    """
    folder = model_folder(spec.base, place)
    if folder is None:
        return _UNKNOWN_MB["recover"]
    shapes, weights = read_shapes(folder), _elements(folder)
    if machine.computes_on_gpu(place):
        return -(-(_PROGRAM + 2 * 4 * weights) // MIB)
    # Float32: weights and gradients, two moments, a mask of bytes; or what the adapters make.
    bytes_per_weight = 4 + 4 + 8 + 1 if spec.weights == "all" else 4 + 4 + 1
    bytes_per_weight += 4 if spec.distillation else 0
    tokens = (place.recovery_batch or spec.batch_size) * min(
        spec.text.context, shapes.longest or spec.text.context
    )
    block = _BLOCK_STATES * shapes.hidden + _MLP_STATES * shapes.widest
    states = len(shapes.blocks) * block + _LOGITS * shapes.vocabulary
    return -(-int(_PROGRAM + bytes_per_weight * weights + 4 * tokens * states) // MIB)


def latency_mb(spec: LatencySpec, place: Place, machine: Machine) -> int:
    """`mem_mb` of a measurement of latencies: the dense and the pruned model side by side."""
    folder = model_folder(spec.pruning.model, place)
    if folder is None:
        return _UNKNOWN_MB["efficiency"]
    served = max(spec.prompts, default=0) * max(spec.batches, default=0)
    models = 3 if isinstance(spec.pruning.pattern, HeadsAndNeurons) else 2  # narrow, made of them
    on_device = machine.computes_on_gpu(place)
    return -(-plan_latency(folder, spec.context, served, models, on_device=on_device) // MIB)


def model_folder(model: ModelSpec, place: Place) -> Path | None:
    """The model's folder, looked for until it is there: a job may fetch it."""
    if model.gguf is not None and not dequantized_folder(model, place).is_dir():
        return None
    key = (model_location(model, place), model.revision)
    if key not in _folders and (folder := cached_folder(*key)) is not None:
        _folders[key] = folder
    return _folders.get(key)


# Thousands of jobs ask for a handful of models.
_folders: dict[tuple[str, str | None], Path] = {}
_planned = functools.cache(
    lambda folder, work, on_device: plan_memory(folder, work, on_device=on_device)
)
_shapes = functools.cache(read_shapes)


@functools.cache
def _elements(folder: Path) -> int:
    tensors = stored_tensors(weight_files(folder)).values()
    return sum(tensor.elements for tensor in tensors)


def _squares(spec: PruningSpec) -> float:
    """Matrices as large as G beside it: see `thanos.pruning` for who keeps what."""
    if spec.channel_permutation:
        return 1 + _squares(replace(spec, channel_permutation=False))  # G in another order
    if spec.correction:
        return 2 + _squares(replace(spec, correction=0.0))  # U, and what moves the weights
    if spec.refine_steps:
        return 4  # U, a copy of G, and the system that is solved while it is scaled
    if isinstance(spec.pattern, Structured) and spec.method.update == "joint":
        # G regular, and its kept part three times: as it is, damped, and factorised; perhaps U.
        return 1 + 3 * (1 - spec.pattern.p) ** 2 + (spec.method.metric == "sparsegpt")
    if spec.method.update == "alternating":
        return 2 + (spec.method.metric == "sparsegpt")  # G scaled and its U, then P; perhaps U
    return int(spec.method.needs_factor)  # U


def _temporaries(spec: PruningSpec, statistics: Statistics) -> int:
    """Matrices as large as W in one segment of rows, without a limit on the segment."""
    if spec.refine_steps:
        return 10  # conjugate gradients
    if spec.method.update == "alternating":
        return 8  # the losses of two segments
    if spec.method.scope == "row" and isinstance(spec.pattern, Unstructured):
        return 8  # scores and their order
    return 3 if statistics == "gram" else 1  # the relative error's; the finished mask's
