"""lm-eval's harness for a model that is read block by block, or lies in memory as a whole.

How requests are made, cut to the model's context and grouped is lm-eval's own. Many of them go
through the blocks together, each block taken once for all, and only the positions that are scored
get logits, a slice at a time: neither the model nor the logits need to fit in memory.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator, normalize_gen_kwargs
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ..errors import UserError
from ..models import BlocksInMemory, BlockSource
from ..models.context import longest_window
from ..models.forward import logits_of_positions, running_by_blocks, states_by_blocks
from ..models.kept_states import KeptStates

logger = logging.getLogger(__name__)

TOKENS_PER_ROW = 256  # of a batch: of longer requests fewer go together
_COST = (
    "generating by blocks reads the whole model for every token: up to %d times for %d requests, "
    "%d at a time; evaluation.task_batch_size and evaluation.limit change that"
)
_ALL = 2**31  # of the requests at once, where lm-eval would cut them into batches

Request = tuple[Any, list[int], list[int]]  # text, tokens of the context, tokens of the answer


class UnscorableError(Exception):
    """An item whose answer cannot be scored."""

    def __init__(self, texts: tuple[str, str], reason: str) -> None:
        super().__init__(reason)
        self.texts = texts


class BlockHarness(HFLM):
    """Scores requests as HFLM does, which takes the whole model for every batch of them.

    Args:
        source: of the blocks.
        tokenizer: of the model; it may be changed.
        rows: requests per forward pass, if none is longer than `TOKENS_PER_ROW`.
        hidden_budget: bytes of hidden states that one pass over the blocks may keep.
    """

    def __init__(
        self,
        source: BlockSource,
        tokenizer: PreTrainedTokenizerBase,
        rows: int,
        hidden_budget: int,
    ) -> None:
        model = source.model
        text = model.config.get_text_config(decoder=True)
        super().__init__(  # lm-eval itself looks for the longest window under three keys only
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=_ALL,
            max_length=longest_window(text),
        )
        self._source = source
        self._rows = rows
        self._in_memory = isinstance(source, BlocksInMemory)
        # Blocks that lie in memory cost nothing to take again: one batch after the other.
        self._hidden_budget = 0 if self._in_memory else hidden_budget
        self._bytes_per_token = text.hidden_size * model.dtype.itemsize

    @torch.no_grad()
    def _loglikelihood_tokens(
        self,
        requests: list[Request],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of every answer after its context, and whether it is the greedy one."""
        for request in requests:
            self._check(request)
        order = Collator(
            requests,
            sort_fn=lambda request: (-len(request[1] + request[2]), tuple(request[1] + request[2])),
            group_by="contexts",
            group_fn=lambda request: request[1] + request[2][:-1],
        )
        answers: list[tuple[float, bool]] = []
        batches = self._batches(request for (request,) in order.get_batched(n=1))
        for group in self._groups(batches):
            inputs = [self._inputs(batch) for batch in group]
            kept = [] if self._in_memory else KeptStates()
            states = states_by_blocks(self._source, inputs, self.device, kept)
            for batch, tokens, hidden in zip(group, inputs, states, strict=True):
                answers += self._answers(order, batch, tokens, hidden)
        return order.get_original(answers)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """As HFLM does, but an item that cannot be scored is named.

        Raises:
            UserError: its context or its answer has no tokens, or its answer more than the model
                can look at.
        """
        try:
            for request in requests:
                self._check_texts(*request.args)
            scored: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm)
        except UnscorableError as error:
            item = next(request for request in requests if request.args == error.texts)
            raise UserError(
                f"evaluation.tasks: {item.task_name}, item {item.doc_id}: {error}; leave the task "
                "out, or mend the item"
            ) from error
        return scored

    def _check_texts(self, context: str, answer: str) -> None:
        if not context and not self.tok_encode(answer, add_special_tokens=False):
            raise UnscorableError((context, answer), f"its answer {answer!r:.80} has no token")

    def _check(self, request: Request) -> None:
        texts, context, answer = request
        if not context:
            raise UnscorableError(texts, f"its context {texts[0]!r:.80} has no token")
        if not answer:  # a token of the context has swallowed it, or it is empty
            raise UnscorableError(texts, f"its answer {texts[1]!r:.80} has no token of its own")
        if len(answer) > self.max_length:
            raise UnscorableError(
                texts, f"its answer has {len(answer)} tokens, the model's context {self.max_length}"
            )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate as HFLM does; a model that is not in memory is read once for every token."""
        longest = max(self._most_tokens(request) for request in requests)
        if longest >= self.max_length:
            raise UserError(
                f"evaluation.tasks: {requests[0].task_name} generates up to {longest} tokens, but "
                f"the model's context has {self.max_length}; leave the task out"
            )
        if not self._in_memory:
            passes = -(-len(requests) // self._rows) * longest
            logger.warning(_COST, passes, len(requests), self._rows)
        self.batch_size_per_gpu = self._rows
        try:
            with running_by_blocks(self._source, self.device):
                return super().generate_until(requests, disable_tqdm=disable_tqdm)
        finally:
            self.batch_size_per_gpu = _ALL

    def _most_tokens(self, request: Instance) -> int:
        asked = normalize_gen_kwargs(dict(request.args[1]), self.max_gen_toks)
        return int(asked["max_gen_toks"])

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        """Requests of one forward pass, from the longest on."""
        batch: list[Request] = []
        rows = 0
        for request in requests:
            if not batch:
                length = len(self._scored(request))
                rows = max(1, min(self._rows, self._rows * TOKENS_PER_ROW // length))
            batch.append(request)
            if len(batch) == rows:
                yield batch
                batch = []
        if batch:
            yield batch

    def _groups(self, batches: Iterable[list[Request]]) -> Iterator[list[list[Request]]]:
        """Batches of one pass over the blocks: one at least, more within the budget."""
        group: list[list[Request]] = []
        taken = 0
        for batch in batches:
            needed = len(batch) * len(self._scored(batch[0])) * self._bytes_per_token
            if group and taken + needed > self._hidden_budget:
                yield group
                group, taken = [], 0
            group.append(batch)
            taken += needed
        if group:
            yield group

    def _scored(self, request: Request) -> list[int]:
        """The tokens that the model sees: all but the last, from the left what is too long."""
        _, context, answer = request
        return (context + answer)[-(self.max_length + 1) :][:-1]

    def _inputs(self, batch: list[Request]) -> Tensor:
        """(B, T) token ids, padded on the right, where no causal model looks."""
        rows = [torch.tensor(self._scored(request)) for request in batch]
        return pad_sequence(rows, batch_first=True)

    def _answers(
        self, order: Collator, batch: list[Request], tokens: Tensor, hidden: Tensor
    ) -> Iterator[tuple[float, bool]]:
        """The answers of a batch, and of the requests that have the same input as one of it.

        Args:
            order: knows these others.
            batch: requests.
            tokens: (B, T) their inputs.
            hidden: (B, T, d) outputs of the last block for them.
        """
        ids, states = [], []
        positions: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        count = 0  # of the positions so far
        for row, request in enumerate(batch):
            _, context, answer = request
            end = len(self._scored(request))
            scored = slice(end - len(answer), end)
            ids.append(tokens[row, scored])
            states.append(hidden[row, scored])
            count += len(answer)
            for _, other, _ in order.get_cache(  # the same request, or several
                req_str=request[0], cxt_toks=context, cont_toks=answer, logits=torch.zeros(1, 1, 1)
            ):
                positions += range(count - len(other), count)
                targets += other
                lengths.append(len(other))
        found = self._scores(
            torch.cat(ids), torch.cat(states), torch.tensor(positions), torch.tensor(targets)
        )
        for logs, greedy in zip(*(part.split(lengths) for part in found), strict=True):
            yield float(logs.sum()), bool(greedy.all())

    def _scores(
        self, tokens: Tensor, states: Tensor, positions: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target at its position, and whether it is the likeliest token.

        Args:
            tokens: (n,) at the positions that are scored.
            states: (n, d) of them.
            positions: (m,) indices of them.
            targets: (m,) token ids.
        """
        logs: list[Tensor] = []
        greedy: list[Tensor] = []
        rows: list[Tensor] = []
        start = 0
        for logits in logits_of_positions(self._source, tokens, states):
            end = start + len(logits)
            here = torch.nonzero((start <= positions) & (positions < end)).flatten()
            at, wanted = positions[here] - start, targets[here]
            likeliest = logits.argmax(dim=-1).cpu()
            shares = torch.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
            logs.append(shares[at.to(logits.device), wanted.to(logits.device)].cpu())
            greedy.append(likeliest[at] == wanted)
            rows.append(here)
            start = end
        back = torch.cat(rows).argsort()
        return torch.cat(logs)[back], torch.cat(greedy)[back]
