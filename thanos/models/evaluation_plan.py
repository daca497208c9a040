"""How much memory evaluating a model will take, from the headers of its files.

Like `memory_plan`, it means to lie a little above the truth and imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from .memory_plan import (
    FLOAT32,
    MIB,
    PROGRAM,
    PROGRAM_WITH_CUDA,
    forward_numbers,
    with_slack,
)
from .shapes import Shapes, read_shapes

POSITIONS_PER_SLICE = 256  # whose logits are in memory together, unless those of a batch
LOGITS_AT_ONCE = 256 * MIB  # take no more than this, see thanos.models.forward
TOKENS_PER_REQUEST = 256  # of a batch of requests, see thanos.evaluation.block_harness
_HARNESS = 130 * MIB  # lm-eval and what it imports: 105 MiB measured, and room


@dataclass(frozen=True)
class Scoring:
    """What of an evaluation its memory depends on.

    Attributes:
        windows: of the largest corpus.
        tokens: per window, before the model's own limit.
        batch_size: windows per forward pass.
        requests: of a task, per forward pass; none without tasks.
        total: tokens of all requests that one pass over the blocks could take, if known.
        quantized: whether weights are rounded before they are used.
        hidden_budget: bytes of hidden states that a pass over the blocks may keep in memory.
        streams: of hidden states: 2 where the dense model's predictions are compared.
    """

    windows: int
    tokens: int
    batch_size: int
    requests: int
    total: int | None
    quantized: bool
    hidden_budget: int
    streams: int = 1


@dataclass(frozen=True)
class EvaluationPlan:
    """Expected peaks in bytes.

    Attributes:
        corpora: on the host, of perplexities, which always go by blocks.
        by_blocks: on the host, of tasks that go by blocks; zero without tasks.
        whole: where the model runs, of tasks that take it as a whole; zero without tasks.
        on_device: whether that is an accelerator.
    """

    corpora: int
    by_blocks: int
    whole: int
    on_device: bool

    def host(self, room: int) -> int:
        """Bytes on the host if tasks take the whole model where `room` bytes are enough."""
        tasks = self.whole if not self.on_device and self.fits(room) else self.by_blocks
        return max(self.corpora, tasks)

    def fits(self, room: int) -> bool:
        """Whether tasks can take the whole model within so many bytes of where it runs."""
        return self.whole <= room

    def __str__(self) -> str:
        parts = {"perplexity": self.corpora, "tasks by blocks": self.by_blocks}
        parts |= {f"with the whole model{' on the device' if self.on_device else ''}": self.whole}
        return ", ".join(f"{name} {size / MIB:,.0f} MiB" for name, size in parts.items() if size)


def plan_evaluation(folder: Path, work: Scoring, *, on_device: bool = False) -> EvaluationPlan:
    """Expect the peak memory of evaluating the model in `folder`.

    Args:
        folder: a model folder with safetensors.
        work: what is to be done.
        on_device: whether the model runs on an accelerator.

    Raises:
        UserError: the folder's files are missing or damaged, or hold no decoder blocks.
    """
    shapes = read_shapes(folder)
    size = shapes.stored if on_device else max(shapes.stored, FLOAT32)
    program = PROGRAM_WITH_CUDA if on_device else PROGRAM
    tokens = min(work.tokens, shapes.longest or work.tokens)
    per_state = shapes.hidden * size
    batch = min(work.windows, work.batch_size) * tokens
    states = work.streams * work.windows * tokens * per_state
    if states > work.hidden_budget:
        states = work.streams * batch * per_state
    row = POSITIONS_PER_SLICE * shapes.vocabulary
    together = batch * shapes.vocabulary * size
    # As the head makes them, and the logarithms of a slice.
    logits = (together if together <= LOGITS_AT_ONCE else row * size) + row * FLOAT32
    parts = (shapes, work, batch, states, logits, size, on_device)
    corpora = _by_blocks(*parts, heads=work.streams) if work.windows else 0
    by_blocks = whole = 0
    if work.requests:
        program += _HARNESS
        batch = work.requests * TOKENS_PER_REQUEST
        total = work.hidden_budget if work.total is None else work.total * per_state
        states = max(min(total, work.hidden_budget), batch * per_state)
        logits = row * (size + 2 * FLOAT32)  # those of one slice while the next are made
        parts = (shapes, work, batch, states, logits, size, on_device)
        by_blocks = program + with_slack(_by_blocks(*parts))
        weights = (sum(shapes.blocks) + shapes.around) * size // shapes.stored
        whole = weights + batch * (forward_numbers(shapes) + shapes.hidden) * size
        whole = with_slack(whole + logits + _rounding(shapes, work))
        whole += 0 if on_device else program
    return EvaluationPlan(program + with_slack(corpora), by_blocks, whole, on_device)


def plan_latency(
    folder: Path, tokens: int, served: int = 0, models: int = 2, *, on_device: bool = False
) -> int:
    """Expect the host's peak, in bytes, of timing a model beside its pruned form.

    Args:
        folder: a model folder with safetensors.
        tokens: of the forward pass, before the model's own limit.
        served: tokens of all prompts that are served together.
        models: that are in memory.
        on_device: whether they run on an accelerator.

    Raises:
        UserError: the folder's files are missing or damaged, or hold no decoder blocks.
    """
    shapes = read_shapes(folder)
    tokens = min(tokens, shapes.longest or tokens)
    size = shapes.stored if on_device else max(shapes.stored, FLOAT32)
    weights = models * (sum(shapes.blocks) + shapes.around) * size // shapes.stored
    if on_device:
        return PROGRAM_WITH_CUDA + with_slack(weights)
    logits = 3 * tokens * shapes.vocabulary * FLOAT32  # of both models, and their difference
    cached = 2 * shapes.hidden * len(shapes.blocks)  # numbers of a token, keys and values
    passing = max(tokens * forward_numbers(shapes), served * (forward_numbers(shapes) + cached))
    return PROGRAM + with_slack(weights + logits + passing * size)


def _by_blocks(
    shapes: Shapes,
    work: Scoring,
    batch: int,
    states: int,
    logits: int,
    size: int,
    on_device: bool,
    heads: int = 1,
) -> int:
    """Bytes on the host: hidden states, and beside them what is around the blocks or one of them.

    Args:
        batch: tokens of one forward pass.
        states: bytes of the hidden states that are kept.
        logits: bytes of those in memory together, and of what the losses take.
        size: bytes per number.
        heads: whose logits are in memory together.
    """
    block = max(shapes.blocks) * size // shapes.stored
    around = shapes.around * size // shapes.stored
    if on_device:
        return states + max(around, block)
    running = block + _rounding(shapes, work) + batch * forward_numbers(shapes) * size
    return states + max(heads * (around + logits), running)


def _rounding(shapes: Shapes, work: Scoring) -> int:
    """What quantising the largest layer takes: it is widened, scaled and rounded."""
    largest = max(rows * columns for _, (rows, columns) in shapes.layers)
    return 4 * largest * FLOAT32 if work.quantized else 0
