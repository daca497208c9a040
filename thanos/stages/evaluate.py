"""Evaluate a pruned checkpoint, or the dense model: perplexity, accuracy on zero-shot tasks, size.

If asked, also how far its predictions are from the dense model's.

    python -m thanos.stages.evaluate <spec> [--place …] [--checkpoint <folder>] \\
        [--windows <folder> …] [--items <folder>] [--memory <MiB>] --parts <folder> \\
        --output evaluation.json

Each corpus, each task and the size is a part by itself, written to <parts> when it is known; a part
that lies there and is current is not measured again. A task that fails costs that task. Tasks take
the whole model where its memory plan is within what there is, and otherwise go by blocks, as
perplexity always does.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..accelerator import free_memory, is_accelerator
from ..artifacts import MANIFEST, read_json, verify_manifest, write_json
from ..command import run_command, stage_parser
from ..compression.packing import Sizes, file_sizes
from ..device import computing_dtype, resolve_device, used
from ..errors import UserError
from ..evaluation.divergence import divergence_of_logits
from ..evaluation.perplexity import perplexity_of_logits
from ..evaluation.quantization import QuantizedBlocks, quantize_model
from ..evaluation.zero_shot import check_tokenizer, zero_shot
from ..identity import EvaluationSpec, Place
from ..identity.fingerprints import Fingerprint, fingerprint
from ..identity.spec import read_spec
from ..models import (
    BlockSource,
    StreamedBlocks,
    hidden_states,
    logits_by_blocks,
    logits_of_batches,
    states_by_blocks,
)
from ..models.loading import adopt_generation_config
from ..models.location import weight_files
from ..opening import dense_folder, open_tokenizer
from ..provenance import provenance
from ..testbed.continuations import TASKS_FOLDER, TESTBED_TASK
from ..workflow.machine import available_memory
from ..workflow.resources import plan_scoring
from .corpora import read_corpus

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass
class Inputs:
    """What an evaluation reads.

    Attributes:
        checkpoint: of the pruned, or trained, model; None for the dense one.
        windows: folders of `thanos.stages.corpora`, in the spec's order.
        items: folder of `thanos.stages.continuations`, where a task needs it.
        parts: folder of what has been measured.
        memory: MiB that may be taken on the host; None: what is free there.
    """

    checkpoint: Path | None
    windows: Sequence[Path]
    items: Path | None
    parts: Path
    memory: int | None = None


def evaluate(spec: EvaluationSpec, place: Place, inputs: Inputs) -> dict[str, Any]:
    """Measure what is not known yet of all parts; return all, by kind and name.

    Raises:
        UserError: a part could not be measured; the others have been.
    """
    evaluation = _Evaluation(spec, place, inputs)
    failed: list[str] = []
    results: dict[str, Any] = {"corpora": {}, "tasks": {}, "texts": {}, "size": {}}
    results |= {"divergences": {}} if spec.divergence else {}
    for part in spec.parts():
        try:
            result = evaluation.part(part)
        except UserError as error:
            failed.append(str(error))
            logger.error("%s", error)
            continue
        kind = result.pop("kind")
        if kind == "size":
            results[kind] = result
        else:
            results[kind][part.readable] = result
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"{failed[0]}{more}; what else was measured stays")
    return {"spec": spec.to_json(), **results}


class _Evaluation:
    """One model, opened when the first part needs it, once for all of them."""

    def __init__(self, spec: EvaluationSpec, place: Place, inputs: Inputs) -> None:
        self.spec = spec
        self.place = place
        self.inputs = inputs
        self.device = resolve_device(place.device)
        self.dtype = computing_dtype(self.device)
        checkpoint = inputs.checkpoint
        self.causes: dict[str, str] = {}
        if checkpoint is not None:
            maker = "rule prune" if spec.recovery is None else "rule recover"
            manifest = verify_manifest(checkpoint, maker)
            files = manifest["files"].items()  # configuration and tokenizer count as well
            self.causes = {f"pruned {name}": file["sha256"] for name, file in files}
        self.folder = checkpoint or dense_folder(spec.base, place)
        self.windows = dict(zip(spec.windows, inputs.windows, strict=True))
        self._blocks: StreamedBlocks | None = None
        self._scored: PreTrainedModel | BlockSource | None = None

    def part(self, part: EvaluationSpec) -> dict[str, Any]:
        """What is on record of a part if that is current, otherwise measured and recorded."""
        began = time.time()
        found = fingerprint(part, self.place)
        found = replace(found, inputs={**found.inputs, **self.causes, **self._inputs(part)})
        file = self.inputs.parts / f"{part.id}.json"
        computes = bool(part.windows or part.tasks)
        machine = used(self.device, self.dtype or self.blocks.storage_dtype) if computes else {}
        if (known := _current(file, found, machine)) is not None:
            logger.info("%s is known: %s", part.readable if computes else "the size", file)
            return known
        if part.divergence:
            result = self._divergence(part)
        elif part.windows:
            result = self._perplexity(part)
        elif part.tasks:
            result = self._task(part)
        else:
            result = {"kind": "size", **measure_size(self.folder)}
        made = provenance(began, found, place=self.place, used=machine or None)
        write_json(file, {"spec": part.to_json(), **result, "provenance": made})
        return {**result, "provenance": made}

    def _inputs(self, part: EvaluationSpec) -> dict[str, str]:
        """Hashes of the tokens or items that a part is measured on."""
        if part.windows:
            folder = self.windows[part.windows[0]]
            manifest = read_json(folder / MANIFEST, sealed=True)
            return {"windows": manifest["tokens_sha256"]}
        if TESTBED_TASK in part.tasks and self.inputs.items is not None:
            manifest = verify_manifest(self.inputs.items, maker="rule continuations")
            return {name: file["sha256"] for name, file in manifest["files"].items()}
        return {}

    def _perplexity(self, part: EvaluationSpec) -> dict[str, Any]:
        tokens, facts = read_corpus(self.windows[part.windows[0]])
        needed = self.blocks.hidden_bytes(tokens.numel())
        hidden = self._room(needed)
        source = QuantizedBlocks(self.blocks, self.spec.quantization, self.spec.skip)
        batch = self.place.evaluation_windows(tokens.shape[1])
        logits = logits_by_blocks(source, tokens, batch, self.device, hidden)
        result = perplexity_of_logits(logits, tokens)
        return {
            "kind": "corpora",
            "perplexity": result.perplexity,
            "loss": result.loss,
            "windows": result.windows,
            "seqlen": result.seqlen,
            "window_losses": list(result.window_losses),
            **facts,
        }

    def _divergence(self, part: EvaluationSpec) -> dict[str, Any]:
        """Both models go by blocks, one after the other; then their heads, side by side."""
        tokens, facts = read_corpus(self.windows[part.windows[0]])
        batches = tokens.split(self.place.evaluation_windows(tokens.shape[1]))
        needed = 2 * self.blocks.hidden_bytes(tokens.numel())
        sources: tuple[BlockSource, BlockSource] = (
            QuantizedBlocks(self.blocks, self.spec.quantization, self.spec.skip),
            self._opened(dense_folder(self.spec.base, self.place)),
        )
        states = []
        for source in sources:
            hidden = self._room(needed)
            states.append(states_by_blocks(source, batches, self.device, hidden))
        ours, theirs = (
            logits_of_batches(source, batches, hidden)
            for source, hidden in zip(sources, states, strict=True)
        )
        result = divergence_of_logits(ours, theirs, tokens)
        return {
            "kind": "divergences",
            "divergence": result.divergence,
            "same_top": result.same_top,
            "windows": result.windows,
            "seqlen": result.seqlen,
            "window_divergences": list(result.window_divergences),
            "window_same_top": list(result.window_same_top),
            **facts,
        }

    def _room(self, needed: int) -> "list[Tensor]":
        """An empty list for hidden states, of which so many bytes will be kept."""
        return hidden_states(needed, self.place.hidden_budget, self.inputs.parts, self.device)

    def _task(self, part: EvaluationSpec) -> dict[str, Any]:
        tokenizer = open_tokenizer(self.spec.base, self.place)
        check_tokenizer(tokenizer)
        scored = zero_shot(
            self.scored_model,
            tokenizer,
            part.tasks[0],
            batch_size=self.place.task_batch,
            hidden_budget=self.place.hidden_budget,
            limit=part.limit,
            mirror=self.place.mirror,
            include_path=TASKS_FOLDER,
            data_folder=self.inputs.items,
        )
        return {**scored.row(), "limit": part.limit}

    @property
    def blocks(self) -> StreamedBlocks:
        """The model, read block by block: it may be larger than the memory."""
        if self._blocks is None:
            self._blocks = self._opened(self.folder)
        return self._blocks

    def _opened(self, folder: Path) -> StreamedBlocks:
        return StreamedBlocks(
            folder,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.spec.base.trust_remote_code,
        )

    @property
    def scored_model(self) -> "PreTrainedModel | BlockSource":
        """What tasks run on: the whole model where it fits, otherwise its blocks."""
        if self._scored is None:
            blocks, quantized = self.blocks, (self.spec.quantization, self.spec.skip)
            if self._whole_model_fits():
                model = blocks.load_whole(self.device)
                quantize_model(model, *quantized)
                self._blocks, self._scored = None, model
            else:
                model, self._scored = blocks.model, QuantizedBlocks(blocks, *quantized)
            adopt_generation_config(self.folder, model)
        return self._scored

    def _whole_model_fits(self) -> bool:
        on_device = is_accelerator(self.device)
        plan = plan_scoring(self.spec, self.place, self.folder, on_device=on_device)
        memory, room = self.inputs.memory, free_memory(self.device)
        if room is None:
            room = available_memory() if memory is None else memory * 2**20
        how = "as a whole" if plan.fits(room) else "by blocks"
        logger.info("expected peak memory: %s; tasks take the model %s", plan, how)
        return plan.fits(room)


def _current(file: Path, found: Fingerprint, machine: dict[str, Any]) -> dict[str, Any] | None:
    """What was measured before, if it would be the same today."""
    if not file.is_file():
        return None
    try:
        known = read_json(file, sealed=True)
        made = known["provenance"]
        differing = found.differences(made["fingerprint"])
        before = made.get("used", {})
        differing += [key for key in ("device", "dtype") if before.get(key) != machine.get(key)]
    except (UserError, KeyError) as error:
        logger.warning("%s is not used (%s); measuring again", file, error)
        return None
    if differing:
        logger.info("%s is not current (%s); measuring again", file, ", ".join(differing))
        return None
    del known["spec"]
    return known


def measure_size(folder: Path) -> dict[str, Any]:
    """Weights and bytes of a model folder as it is and packed.

    One tensor is in memory at a time. `pruned_tensors` are those that packing makes smaller.
    """
    sizes = sum((file_sizes(file) for file in weight_files(folder)), Sizes())
    return {
        "parameters": {"total": sizes.weights, "nonzero": sizes.nonzero},
        "bytes": {
            "dense": sizes.dense,
            "packed": sizes.packed,
            "pruned_tensors": sizes.sparse_dense,
            "pruned_tensors_packed": sizes.sparse_packed,
        },
    }


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--checkpoint", type=Path, nargs="?")
    arguments.add_argument("--windows", type=Path, nargs="*", default=[])
    arguments.add_argument("--items", type=Path, nargs="?")
    arguments.add_argument("--parts", type=Path, required=True)
    arguments.add_argument("--memory", type=int, help="MiB to keep within; default: what is free")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    inputs = Inputs(given.checkpoint, given.windows, given.items, given.parts, given.memory)
    spec = read_spec(EvaluationSpec, given.spec)
    write_json(given.output, evaluate(spec, given.place, inputs))


if __name__ == "__main__":
    run_command(main)
