"""Run a model's decoder blocks one by one exactly as the model itself would."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thanos.errors import UserError

from .blocks import DecoderBlocks


@dataclass(frozen=True)
class BlockCall:
    """What the model passes to one block besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]  # masks, rotary embeddings, ...: may differ from block to block


@dataclass(frozen=True)
class Recording:
    """What the model passes to its blocks for each batch of windows."""

    hidden: list[Tensor]  # per batch: inputs of the first block, (B, T, d)
    calls: list[list[BlockCall]] = field(default_factory=list)  # [batch][block]

    def passes(
        self, index: int, block: nn.Module, device: torch.device | str
    ) -> Iterator[Callable[[], Tensor]]:
        """For each batch, a function that runs block `index` on the batch's hidden states."""
        for hidden, calls in zip(self.hidden, self.calls, strict=True):
            yield partial(run_block, block, hidden, calls[index], device)

    def advance(self, index: int, block: nn.Module, device: torch.device | str) -> None:
        """Replace the hidden states, batch by batch, by the outputs of block `index`."""
        for batch, run in enumerate(self.passes(index, block, device)):
            self.hidden[batch] = run().to(self.hidden[batch].device)


@torch.no_grad()
def record(
    model: PreTrainedModel,
    blocks: DecoderBlocks,
    windows: Tensor,
    batch_size: int,
    hidden: list[Tensor] | None = None,
) -> Recording:
    """`record_batches` of windows (n, T) of token ids, `batch_size` of them per forward pass."""
    return record_batches(model, blocks, windows.split(batch_size), hidden)


@torch.no_grad()
def record_batches(
    model: PreTrainedModel,
    blocks: DecoderBlocks,
    batches: Iterable[Tensor],
    hidden: list[Tensor] | None = None,
) -> Recording:
    """Run the model's own forward with every block replaced by one that only takes notes.

    No block's weights are touched and neither is the head, so the blocks may lie on the meta
    device. A tensor that is the same in every batch of one shape is kept once.

    Args:
        model: the model; only what stands before its blocks is computed.
        blocks: the model's blocks.
        batches: (B, T) token ids, of one forward pass each.
        hidden: the empty list to keep the hidden states in; it decides where they lie.

    Raises:
        UserError: a token is not in the model's vocabulary, or the model changes the hidden states
            between its blocks.
    """
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    recording = Recording([] if hidden is None else hidden)
    firsts: dict[torch.Size, list[BlockCall]] = {}
    for batch in batches:
        if int(batch.max()) >= vocabulary:
            raise UserError(
                f"token {int(batch.max())} is outside the model's vocabulary of {vocabulary}: "
                "the windows were cut with another tokenizer"
            )
        inputs, calls = _record_batch(model, blocks, batch)
        if batch.shape in firsts:
            known: dict[tuple[int, int], bool] = {}
            first = firsts[batch.shape]
            calls = [_reuse(*pair, known) for pair in zip(calls, first, strict=True)]
        else:
            firsts[batch.shape] = calls
        recording.hidden.append(inputs)
        recording.calls.append(calls)
    return recording


@torch.no_grad()
def finish(model: PreTrainedModel, blocks: DecoderBlocks, batch: Tensor, hidden: Tensor) -> Tensor:
    """Return the logits (B, T, V) that the model makes of what its last block returned.

    The model's own forward runs, its blocks passing on what they get and the last one returning
    `hidden`; no block's weights are touched.

    Args:
        model: only what stands before and after its blocks is computed.
        blocks: the model's blocks.
        batch: (B, T) token ids.
        hidden: (B, T, d) outputs of the last block for them.
    """
    device = _device(model)
    for as_returned in _WAYS_TO_RETURN:
        try:
            with _recorders(blocks.modules, [], as_returned, hidden.to(device)):
                logits = model(input_ids=batch.to(device), use_cache=False).logits
        except torch.OutOfMemoryError:
            raise
        except (_HiddenChangedError, AttributeError, IndexError, RuntimeError, TypeError):
            continue  # a block's output of the wrong kind, wherever the model stumbles over it
        if logits.shape[:-1] == batch.shape:
            return logits
    raise UserError(f"{type(model).__name__} makes no logits of what its blocks return")


def run_block(
    block: nn.Module, hidden: Tensor, call: BlockCall, device: torch.device | str
) -> Tensor:
    """Return the block's outputs (B, T, d) for the inputs `hidden` (B, T, d), on `device`."""
    args, kwargs = _to_device(call.args, device), _to_device(call.kwargs, device)
    output = block(hidden.to(device), *args, **kwargs)
    return output[0] if isinstance(output, tuple) else output


# Blocks of some models return a tensor, those of others a tuple that starts with it. Only the
# right kind arrives unchanged at the next block.
_WAYS_TO_RETURN: tuple[Callable[[Tensor], Any], ...] = (
    lambda hidden: hidden,
    lambda hidden: (hidden,),
)


class _AllRecordedError(Exception):
    """Ends the model's forward at its last block: the head would be computed for nothing."""


class _HiddenChangedError(Exception):
    """A block was given something else than what the block before it returned."""


def _record_batch(
    model: PreTrainedModel, blocks: DecoderBlocks, batch: Tensor
) -> tuple[Tensor, list[BlockCall]]:
    for as_returned in _WAYS_TO_RETURN:
        notes: list[tuple[Tensor, BlockCall]] = []
        try:
            with _recorders(blocks.modules, notes, as_returned):
                model(input_ids=batch.to(_device(model)), use_cache=False)
        except _AllRecordedError:
            return notes[0][0], [call for _, call in notes]
        except _HiddenChangedError:
            continue
        break
    raise UserError(
        f"{type(model).__name__} changes the hidden states between the blocks of {blocks.name}, "
        "or does not run them one after the other; its blocks cannot be pruned one at a time"
    )


@contextmanager
def _recorders(
    modules: nn.ModuleList,
    notes: list[tuple[Tensor, BlockCall]],
    as_returned: Callable[[Tensor], Any],
    last_output: Tensor | None = None,
) -> Iterator[None]:
    """Blocks that note what they get; the last returns `last_output` or ends the forward."""

    def recorder(index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs.pop("hidden_states")
            if len(notes) != index or (notes and hidden is not notes[0][0]):
                raise _HiddenChangedError
            notes.append((hidden, BlockCall(args[1:], kwargs)))
            if index < len(modules) - 1:
                return as_returned(hidden)
            if last_output is None:
                raise _AllRecordedError
            return as_returned(last_output)

        return forward

    for index, block in enumerate(modules):
        # On the instance, so that the block keeps the attributes that the model reads from it.
        block.forward = recorder(index)
    try:
        yield
    finally:
        for block in modules:
            del block.forward


def _reuse(new: Any, old: Any, known: dict[tuple[int, int], bool]) -> Any:
    """Return `new` with every tensor replaced by its counterpart in `old` where they are equal.

    `known` remembers comparisons: blocks share their masks, and one comparison is enough.
    """
    if isinstance(new, Tensor) and isinstance(old, Tensor):
        pair = (id(new), id(old))
        if pair not in known:
            known[pair] = new.dtype == old.dtype and torch.equal(new, old)
        return old if known[pair] else new
    if type(new) is not type(old):
        return new
    if isinstance(new, BlockCall):
        return BlockCall(_reuse(new.args, old.args, known), _reuse(new.kwargs, old.kwargs, known))
    if type(new) in (tuple, list) and len(new) == len(old):
        return type(new)(_reuse(*pair, known) for pair in zip(new, old, strict=True))
    if type(new) is dict and new.keys() == old.keys():
        return {key: _reuse(new[key], old[key], known) for key in new}
    return new


def _device(model: PreTrainedModel) -> torch.device:
    return model.get_input_embeddings().get_parameter("weight").device


def _to_device(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_to_device(item, device) for item in value)
    if type(value) is dict:
        return {key: _to_device(item, device) for key, item in value.items()}
    return value
