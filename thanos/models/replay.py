"""Run a model's decoder blocks one by one exactly as the model itself would."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thanos.errors import UserError

from .block_calls import BlockCall, Moving, Passed, Returned, hidden_of, reuse
from .blocks import DecoderBlocks
from .context import longest_window
from .kept_states import KeptStates

_PROBE_TOKENS = 16


@dataclass(frozen=True)
class Recording:
    """What the model passes to its blocks for each batch of windows."""

    hidden: list[Tensor]  # per batch: inputs of the first block, (B, T, d)
    calls: list[list[BlockCall]] = field(default_factory=list)  # [batch][block]
    _passed: dict[int, Passed] = field(default_factory=lambda: defaultdict(Passed))  # [batch]

    def passes(
        self, index: int, block: Callable[..., Any], device: torch.device | str
    ) -> Iterator[Callable[[], Tensor]]:
        """For each batch, a function that runs block `index` on the batch's hidden states."""
        for batch in range(len(self.hidden)):
            yield partial(self._run, batch, index, block, device, keep=False)

    def outcome(
        self, index: int, block: Callable[..., Any], device: torch.device | str
    ) -> list[Tensor]:
        """What block `index` gives to others for the first batch: its outputs, and what it leaves.

        Nothing is kept of it.
        """
        known = self._passed[0]
        self._passed[0] = made = known.copied()
        try:
            states = self._run(0, index, block, device, keep=True)
        finally:
            self._passed[0] = known
        return [states, *made.new_since(known)]

    def again(self, hidden: list[Tensor] | None) -> "Recording":
        """The same calls and hidden states, in the empty list given, to go a way of their own."""
        states = KeptStates() if hidden is None else hidden
        for batch in self.hidden:
            states.append(batch)
        return Recording(states, self.calls)

    def advance(self, index: int, block: nn.Module, device: torch.device | str) -> None:
        """Replace the hidden states, batch by batch, by the outputs of block `index`.

        What the block leaves to later ones is kept beside them until the last of those has run.
        """
        for run in self.advancing(index, block, device):
            run()

    def advancing(
        self, index: int, block: nn.Module, device: torch.device | str
    ) -> Iterator[Callable[[], None]]:
        """For each batch, a function that does so."""
        for batch in range(len(self.hidden)):
            yield partial(self._advance, batch, index, block, device)

    def _advance(
        self, batch: int, index: int, block: nn.Module, device: torch.device | str
    ) -> None:
        states = self._run(batch, index, block, device, keep=True)
        self.hidden[batch] = states

    def _run(
        self,
        batch: int,
        index: int,
        block: Callable[..., Any],
        device: torch.device | str,
        *,
        keep: bool,
    ) -> Tensor:
        """The block's outputs (B, T, d), on `device`."""
        hidden, calls, passed = self.hidden[batch], self.calls[batch], self._passed[batch]
        call, moving = calls[index], Moving(passed, device)
        args, kwargs = moving.moved(call.args), dict(moving.moved(call.kwargs))
        if call.name is None:
            output = block(hidden.to(device), *args, **kwargs)
        else:
            output = block(*args, **kwargs, **{call.name: hidden.to(device)})
        if keep:
            moving.keep_changed(hidden.device)
            passed.keep_returned(index, output, calls, hidden.device)
        return hidden_of(output)


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


def record_probe(model: PreTrainedModel, blocks: DecoderBlocks) -> Recording:
    """`record` of a few random tokens, to find out how the blocks are wired."""
    return record(model, blocks, probe_tokens(model), batch_size=1)


def probe_tokens(model: PreTrainedModel) -> Tensor:
    """A window (1, T) of a few random tokens."""
    longest = longest_window(model.config.get_text_config(decoder=True))
    length = min(_PROBE_TOKENS, longest or _PROBE_TOKENS)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    return torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0))


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
        hidden: the empty list to keep the hidden states in; it decides where they lie, by default
            on the host.

    Raises:
        UserError: a token is not in the model's vocabulary, or the model changes the hidden states
            between its blocks.
    """
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    recording = Recording(KeptStates() if hidden is None else hidden)
    firsts: dict[torch.Size, list[BlockCall]] = {}
    for batch in batches:
        if int(batch.max()) >= vocabulary:
            raise UserError(
                f"token {int(batch.max())} is outside the model's vocabulary of {vocabulary}: "
                "the windows were cut with another tokenizer"
            )
        inputs, calls = _record_batch(model, blocks, batch)
        if batch.shape in firsts:
            known: dict[tuple[int, int], Any] = {}
            first = firsts[batch.shape]
            calls = [reuse(*pair, known) for pair in zip(calls, first, strict=True)]
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
    for parts in _WAYS_TO_RETURN:
        try:
            with _recorders(blocks.modules, [], parts, hidden.to(device)):
                logits = model(input_ids=batch.to(device), use_cache=False).logits
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a block's output of the wrong kind, wherever the model stumbles over it
            continue
        if logits.shape[:-1] == batch.shape:
            return logits
    raise UserError(f"{type(model).__name__} makes no logits of what its blocks return")


# What a block returns: a tensor, or that many parts of which the hidden states are the first. Only
# the right kind arrives unchanged at the next block.
_WAYS_TO_RETURN = (0, 1, 2, 3, 4)
_STATES = "hidden_states"  # the name by which models pass them, where they use one


class _AllRecordedError(Exception):
    """Ends the model's forward at its last block: the head would be computed for nothing."""


class _HiddenChangedError(Exception):
    """A block was given something else than what the block before it returned."""


def _record_batch(
    model: PreTrainedModel, blocks: DecoderBlocks, batch: Tensor
) -> tuple[Tensor, list[BlockCall]]:
    for parts in _WAYS_TO_RETURN:
        notes: list[tuple[Tensor, BlockCall]] = []
        try:
            with _recorders(blocks.modules, notes, parts):
                model(input_ids=batch.to(_device(model)), use_cache=False)
        except _AllRecordedError:
            return notes[0][0], [call for _, call in notes]
        except (torch.OutOfMemoryError, UserError):
            raise
        except Exception as error:  # what a model does with an output of the wrong kind
            if not notes and not isinstance(error, _HiddenChangedError):
                raise UserError(
                    f"{type(model).__name__} cannot run on tokens up to its first block "
                    f"({type(error).__name__}: {error!s:.200}); check its config.json"
                ) from error
    raise UserError(
        f"{type(model).__name__} changes the hidden states between the blocks of {blocks.name}, "
        "or does not run them one after the other; its blocks cannot be pruned one at a time"
    )


@contextmanager
def _recorders(
    modules: nn.ModuleList,
    notes: list[tuple[Tensor, BlockCall]],
    parts: int,
    last_output: Tensor | None = None,
) -> Iterator[None]:
    """Blocks that note what they get; the last returns `last_output` or ends the forward."""
    states: list[tuple[Any, ...]] = []

    def returned(index: int, hidden: Tensor) -> Any:
        return Returned.of(index, hidden, parts) if parts else hidden

    def recorder(index: int) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            name = None if args else _STATES
            hidden, args = (args[0], args[1:]) if args else (kwargs.pop(_STATES, None), ())
            if len(notes) != index or not isinstance(hidden, Tensor):
                raise _HiddenChangedError
            state = _state(hidden)
            if states and state != states[0]:
                raise _HiddenChangedError
            states.append(state)
            notes.append((hidden, BlockCall(args, kwargs, name)))
            if index < len(modules) - 1:
                return returned(index, hidden)
            if last_output is None:
                raise _AllRecordedError
            return returned(index, last_output)

        return forward

    for index, block in enumerate(modules):
        # On the instance, so that the block keeps the attributes that the model reads from it.
        block.forward = recorder(index)
    try:
        yield
    finally:
        for block in modules:
            del block.forward


def _state(hidden: Tensor) -> tuple[Any, ...]:
    """What views of all of a tensor have in common, for as long as nobody changes it in place."""
    version = 0 if hidden.is_inference() else hidden._version  # not counted in inference mode
    return hidden.data_ptr(), hidden.shape, hidden.stride(), hidden.dtype, version


def _device(model: PreTrainedModel) -> torch.device:
    return model.get_input_embeddings().get_parameter("weight").device
