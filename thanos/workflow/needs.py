"""What a job asks for: memory, time and GPUs, more with every attempt; and its share of cores."""

import functools
from dataclasses import dataclass

from ..identity import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    ModelSpec,
    Place,
    PruningSpec,
    RecoverySpec,
    Spec,
    WindowsSpec,
)
from ..models.memory_plan import MIB
from ..models.shapes import read_shapes
from .resources import (
    Machine,
    evaluation_mb,
    latency_mb,
    model_folder,
    pruning_mb,
    recovery_mb,
    tokens_mb,
)
from .speed import Speed
from .time_plan import cost_of

_SNAKEMAKE_MB = 400  # of the two Snakemake processes inside a cluster's job
_SHORT, _LONG, _LONGEST = 60, 240, 7 * 24 * 60  # minutes
_ROOM = 3  # times the minutes that are expected, of machines that are not known here
_CORE = Speed(products=2e10, numbers=2e8)
_GPU = Speed(products=5e13, numbers=2e11)
_SMALL_MB = 4000  # jobs below gain little by threads, and more by running beside each other


@dataclass(frozen=True)
class Needs:
    """Resources of a job: MiB of memory, minutes, GPUs of a cluster."""

    mem_mb: int
    runtime: int
    gpu: int


def needs_of(spec: Spec, place: Place, machine: Machine, attempt: int = 1) -> Needs:
    """What the job that makes a thing asks for.

    Args:
        spec: of tokens, windows, a pruned or trained model, an evaluation or a latency.
        place: where it is computed.
        machine: where jobs run.
        attempt: from 1; memory and time grow with it.

    Raises:
        UserError: the model on this machine is not usable.
    """
    gpu = 0 if place.device == "cpu" or _cuts_tokens(spec) else machine.gpus_per_job
    on_gpu = gpu > 0 or machine.computes_on_gpu(place)
    megabytes = _SNAKEMAKE_MB + _megabytes(spec, place, machine)
    return Needs(attempt * megabytes, attempt * _minutes(spec, place, on_gpu), gpu)


def threads_of(needed: Needs, machine: Machine, cores: int, jobs: int) -> int:
    """Threads of a job on one machine: the cores, shared with those that run beside it.

    Args:
        needed: by the job.
        machine: this one.
        cores: of it.
        jobs: of the kind, that could run at the same time.
    """
    if needed.mem_mb < _SMALL_MB:
        return 1
    beside = max(1, min(jobs, machine.memory // MIB // needed.mem_mb))
    return max(1, cores // beside)


def _cuts_tokens(spec: Spec) -> bool:
    return isinstance(spec, CalibrationSpec | WindowsSpec)


def _megabytes(spec: Spec, place: Place, machine: Machine) -> int:
    if isinstance(spec, PruningSpec):
        return pruning_mb(spec, place, machine)
    if isinstance(spec, RecoverySpec):
        return recovery_mb(spec, place, machine)
    if isinstance(spec, EvaluationSpec):
        return evaluation_mb(spec, place, machine)
    if isinstance(spec, LatencySpec):
        return latency_mb(spec, place, machine)
    assert isinstance(spec, CalibrationSpec | WindowsSpec)
    return tokens_mb(spec, place)


def _minutes(spec: Spec, place: Place, on_gpu: bool) -> int:
    least = _SHORT if _cuts_tokens(spec) or isinstance(spec, LatencySpec) else _LONG
    folder = model_folder(_model(spec), place)
    if folder is None:
        return least
    seconds = cost_of(spec, _shapes(folder)).on(_GPU if on_gpu else _CORE)
    return min(_LONGEST, max(least, -(-int(_ROOM * seconds) // 60)))


def _model(spec: Spec) -> ModelSpec:
    if isinstance(spec, EvaluationSpec | RecoverySpec):
        return spec.base
    if isinstance(spec, LatencySpec):
        return spec.pruning.model
    model = getattr(spec, "model")  # noqa: B009 (all other kinds of things have one)
    assert isinstance(model, ModelSpec)
    return model


_shapes = functools.cache(read_shapes)
