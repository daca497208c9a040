"""The seconds that a spec's job will take on a CPU, by arithmetic from the model's shapes.

Matrix products are counted as what they are. All else is counted in numbers that are read, changed
and written, with factors that were fitted to one core: `_FORWARD` to walks through the testbed's
and the real model, `_SOLVE` to single layers of 256² to 2048² (0.03 to 1 s).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..identity import (
    CalibrationSpec,
    EvaluationSpec,
    LatencySpec,
    PruningSpec,
    RecoverySpec,
    Spec,
    WindowsSpec,
)
from ..models.memory_plan import input_widths
from ..models.shapes import EXPERT, Shapes
from ..pruning.patterns import SemiStructured, Unstructured
from .speed import Speed

_JOB_SECONDS = 1.0  # of starting a stage, of reading and writing
_TOKENS_SECONDS = 6.0  # of extracting a corpus and cutting it into tokens
_TASK_SECONDS = 1.0  # of making its requests
_FORWARD = 2.8  # per number of a block's activations
_LOSS = 0.7  # per logit
_ALL_TOKENS = 320_000  # of a corpus such as WikiText-2's test split
# Rounds of a latency, of both models, forward or prefill and decoding, in forward passes.
_LATENCY_PASSES = 60
_TRAINING_PASSES = 3.5  # forward passes that a step costs, with that of the optimizer
# By update and kind of pattern: numbers per weight, and products as large as W G.
_SOLVE = {
    ("none", "unstructured"): (22, 1.3),
    ("none", "structured"): (14, 1.1),
    ("none", "n:m"): (22, 1.3),
    ("sequential", "unstructured"): (39, 3.2),
    ("sequential", "structured"): (39, 1.2),
    ("sequential", "n:m"): (50, 0.8),
    ("joint", "unstructured"): (73, 2.5),
    ("joint", "structured"): (22, 1.9),
    ("joint", "n:m"): (123, 1.0),
    # Of the alternating update numbers are per iteration, with a product each.
    ("alternating", "unstructured"): (15, 4.0),
    ("alternating", "structured"): (10, 4.0),
    ("alternating", "n:m"): (10, 4.0),
}
# Operations per token and entry of a Gram matrix: half of it is computed, in squares, at three
# quarters of the rate.
_GRAM = 4 / 3
_REFINEMENT_PRODUCTS = 2  # per step
# Of an allocation by error, see thanos.layer_patterns.
_TOKENS_FOR_ERRORS, _STEPS_FOR_ERRORS = 4096, 4
_ASSIGNMENT = (
    35  # per sum of a channel's scores and a group's, of which a layer of neurons has b²/m
)
# Passes through a block up to one group of layers after the other, and of a step of training.
_SUBLAYER_PASSES = 1.4
_PASSES_PER_STEP = 3.5  # forward, backward, and the windows that judge
# Questions, requests per question, tokens per request.
_TASKS = {
    "doc_continuation": (400, 4, 80),
    "winogrande": (1267, 2, 28),
    "openbookqa": (500, 4, 20),
    "boolq": (3270, 1, 150),
    "piqa": (1838, 2, 40),
    "hellaswag": (10042, 4, 90),
    "arc_easy": (2376, 4, 35),
    "arc_challenge": (1172, 4, 40),
    "rte": (277, 1, 85),
    "wikitext": (62, 80, 1024),
}


Layer = tuple[str, tuple[int, int]]  # name, rows and columns


@dataclass(frozen=True)
class Cost:
    """What a job computes."""

    products: float = 0.0  # floating-point operations
    numbers: float = 0.0
    seconds: float = 0.0  # whatever the machine

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.products + other.products,
            self.numbers + other.numbers,
            self.seconds + other.seconds,
        )

    def on(self, speed: Speed) -> float:
        """Seconds on a machine."""
        return self.seconds + self.products / speed.products + self.numbers / speed.numbers


_JOB = Cost(seconds=_JOB_SECONDS)


def cost_of(spec: Spec, shapes: Shapes) -> Cost:
    """What making a thing costs, without what it is made from.

    Args:
        spec: of tokens, windows, a pruned or trained model, an evaluation or a latency.
        shapes: of the model.
    """
    if isinstance(spec, PruningSpec):
        return _pruning(spec, shapes)
    if isinstance(spec, RecoverySpec):
        return _recovery(spec, shapes)
    if isinstance(spec, EvaluationSpec):
        return _evaluation(spec, shapes)
    if isinstance(spec, LatencySpec):
        length = _length(spec.context, shapes)
        total = _JOB + _scaled(_scored(length, length, shapes), _LATENCY_PASSES)
        for batch, prompt in itertools.product(spec.batches, spec.prompts):
            length = _length(prompt, shapes)
            total += _scaled(_scored(batch * length, length, shapes), _LATENCY_PASSES)
        return total
    if isinstance(spec, CalibrationSpec | WindowsSpec):
        return _JOB + Cost(seconds=_TOKENS_SECONDS)
    return _JOB


def _pruning(spec: PruningSpec, shapes: Shapes) -> Cost:
    blocks = len(shapes.blocks)
    kind = "n:m" if isinstance(spec.pattern, SemiStructured) else "structured"
    kind = "unstructured" if isinstance(spec.pattern, Unstructured) else kind
    per_weight, per_product = _SOLVE[spec.method.update, kind]
    if spec.method.update == "alternating":
        iterations = spec.alternation.iterations
        per_weight, per_product = iterations * per_weight, iterations + per_product
    per_product += _REFINEMENT_PRODUCTS * spec.refine_steps
    solve = _solved(shapes, per_weight, per_product)
    for _, (rows, columns) in shapes.layers:
        if isinstance(spec.pattern, SemiStructured) and spec.channel_permutation and columns > rows:
            solve += Cost(_ASSIGNMENT * rows * columns**2 / spec.pattern.m)
    total = _JOB + _scaled(solve, blocks)
    if spec.calibration is not None:
        tokens = spec.calibration.windows * _length(spec.calibration.context, shapes)
        length = _length(spec.calibration.context, shapes)
        gathering = _SUBLAYER_PASSES if spec.order == "sublayer" else 1
        # The dense model, beside it, runs once: there is room for what its layers get.
        total += _scaled(_forward(tokens, length, shapes), gathering + spec.streams)
        if spec.layer_errors or spec.method.needs_factor or spec.correction:
            products = _GRAM + 2.0 if spec.correction else _GRAM
            total += Cost(products * tokens * _seen(shapes, _squares) * blocks)
        if spec.allocation == "owl":  # the dense model is surveyed first
            total += _scaled(_forward(tokens, length, shapes), 2)
        elif spec.allocation == "error":
            some = min(tokens, _TOKENS_FOR_ERRORS)
            # Experts are tried all at once: gate and up, then down.
            layers = len(shapes.of_all_tokens) + 2 * bool(shapes.of_experts)
            tried = layers if spec.allocation_unit == "layer" else 1
            total += _scaled(_forward(some, length, shapes), 3 + tried)
            total += Cost(_GRAM * some * _seen(shapes, _squares) * blocks)
            per_weight, per_product = _SOLVE["none", kind]
            per_product += _REFINEMENT_PRODUCTS * _STEPS_FOR_ERRORS
            total += _scaled(_solved(shapes, per_weight, per_product), blocks)
        trained = spec.reconstruction_steps * (spec.reconstruction_batch or 0) * length
        total += _scaled(_forward(trained, length, shapes), _PASSES_PER_STEP)
    return total


def _solved(shapes: Shapes, per_weight: float, per_product: float) -> Cost:
    """Of pruning the layers of a block."""
    weights = _weights(shapes.layers)
    products = sum(rows * columns**2 for _, (rows, columns) in shapes.layers)
    return Cost(2.0 * per_product * products, per_weight * weights)


def _recovery(spec: RecoverySpec, shapes: Shapes) -> Cost:
    length = _length(spec.text.context, shapes)
    passes = _TRAINING_PASSES + (1 if spec.distillation else 0)
    return _JOB + _scaled(_scored(spec.text.windows * length, length, shapes), passes)


def _evaluation(spec: EvaluationSpec, shapes: Shapes) -> Cost:
    total = _JOB
    for windows in spec.windows:
        length = _length(windows.context, shapes)
        tokens = windows.max_windows * length if windows.max_windows else _ALL_TOKENS
        # Once for the perplexity; for a divergence both models once more.
        total += _scaled(_scored(tokens, length, shapes), 3 if spec.divergence else 1)
    for task in spec.tasks:
        questions, requests, length = _TASKS.get(task, _TASKS["doc_continuation"])
        total += Cost(seconds=_TASK_SECONDS)
        asked = min(spec.limit or questions, questions) * requests
        total += _scored(asked * length, length, shapes)
    return total


def _scored(tokens: float, length: int, shapes: Shapes) -> Cost:
    """Through all blocks and the head, with the loss."""
    logits = tokens * shapes.vocabulary
    head = Cost(2.0 * logits * shapes.hidden, _LOSS * logits)
    return _forward(tokens, length, shapes) + head


def _forward(tokens: float, length: int, shapes: Shapes) -> Cost:
    """Through all blocks, `length` tokens at a time; of a mixture the experts that a token has."""
    matrices = _seen(shapes, _weights)
    attention = 4.0 * length * shapes.hidden
    numbers = _FORWARD * (6 * shapes.hidden + 3 * shapes.widest)
    one = Cost(tokens * (2 * matrices + attention), tokens * numbers)
    return _scaled(one, len(shapes.blocks))


def _seen(shapes: Shapes, size: Callable[[Sequence[Layer]], float]) -> float:
    """The size of a block's layers that a token goes through: of a mixture some of the experts."""
    experts = shapes.of_experts
    count = len({name.partition(EXPERT)[2].partition(".")[0] for name, _ in experts})
    share = shapes.experts_per_token / count if count else 0.0
    return size(shapes.of_all_tokens) + share * size(experts)


def _weights(layers: Sequence[Layer]) -> float:
    return float(sum(rows * columns for _, (rows, columns) in layers))


def _squares(layers: Sequence[Layer]) -> float:
    return float(sum(width**2 for width in input_widths(layers)))


def _length(context: int, shapes: Shapes) -> int:
    return min(context, shapes.longest or context)


def _scaled(cost: Cost, times: float) -> Cost:
    return Cost(cost.products * times, cost.numbers * times, cost.seconds * times)
