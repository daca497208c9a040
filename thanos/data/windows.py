"""Windows of tokens: drawn at random for calibration, cut one after another for evaluation."""

import hashlib
import json
import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import UserError

if TYPE_CHECKING:  # a job that only counts windows must not pay for the import
    from transformers import PreTrainedTokenizerBase

# A byte-level token covers at least one byte of text; special tokens and the dummy prefix come on
# top, and no tokenizer adds as many as this to a document.
MAX_ADDED_TOKENS = 8


@dataclass(frozen=True)
class Survey:
    """What one reading of all documents tells of them.

    Attributes:
        sizes: of each document in bytes of UTF-8.
        sha256: of documents in their order: the identity of a calibration corpus.
    """

    sizes: Sequence[int]
    sha256: str


def survey(documents: Iterable[str]) -> Survey:
    """Read all documents once, holding one at a time."""
    sizes, digest = array("Q"), hashlib.sha256()
    for document in documents:
        content = document.encode()
        sizes.append(len(content))
        digest.update(f"{len(content)}\n".encode() + content)
    return Survey(sizes, digest.hexdigest())


def sample_windows(
    documents: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    windows: int,
    seqlen: int,
    seed: int,
    *,
    add_bos: bool = False,
    source: str = "calibration",
    sizes: Sequence[int] | None = None,
) -> torch.Tensor:
    """Draw calibration windows: a random document longer than the window, a random offset in it.

    Documents are drawn uniformly, with replacement, from those of more than `seqlen` tokens; a
    document is tokenised when it is first drawn, and never again.

    Args:
        documents: may lie in a file, see `thanos.data.streams`: those that are drawn are asked for.
        add_bos: start every window with the begin-of-text token, before `seqlen - 1` of the
            document's; otherwise only what the tokenizer itself puts before a document is there.
        source: name of the documents' source, for the error message.
        sizes: of the documents, if they are known already.

    Returns:
        (windows, seqlen) int64 token ids, a function of the arguments alone.

    Raises:
        UserError: if no document is longer than the window, or there is no begin-of-text token.
    """
    bos = _bos(tokenizer) if add_bos else None
    seqlen -= bos is not None
    generator = random.Random(seed)
    if sizes is None:
        sizes = survey(documents).sizes
    candidates = array(
        "Q", (index for index, size in enumerate(sizes) if size + MAX_ADDED_TOKENS > seqlen)
    )
    tokens: dict[int, torch.Tensor] = {}  # of the documents that are long enough
    longest = 0
    drawn: list[torch.Tensor] = []
    while len(drawn) < windows:
        if not candidates:
            raise UserError(_too_short(source, sizes, longest, seqlen))
        position = generator.randrange(len(candidates))
        index = candidates[position]
        if index not in tokens:
            ids = token_ids(documents[index], tokenizer, special=bos is None)
            longest = max(longest, len(ids))
            if len(ids) <= seqlen:  # forget it; what remains is still drawn uniformly
                candidates[position] = candidates[-1]
                candidates.pop()
                continue
            tokens[index] = ids.int()  # no vocabulary has more
        ids = tokens[index]
        start = generator.randrange(len(ids) - seqlen + 1)
        drawn.append(ids[start : start + seqlen].long())
    return _checked(torch.stack(drawn), bos, tokenizer, source)


def cut_windows(
    text: str,
    tokenizer: "PreTrainedTokenizerBase",
    seqlen: int,
    max_windows: int | None = None,
    *,
    add_bos: bool = False,
    source: str = "evaluation",
) -> torch.Tensor:
    """Cut a text, tokenised once, into windows that do not overlap; the remainder is dropped.

    Args:
        add_bos: as of `sample_windows`.

    Returns:
        (n, seqlen) int64 token ids, n at most `max_windows`.

    Raises:
        UserError: if the text is shorter than one window, or there is no begin-of-text token.
    """
    bos = _bos(tokenizer) if add_bos else None
    seqlen -= bos is not None
    ids = token_ids(text, tokenizer, special=bos is None)
    count = len(ids) // seqlen
    if count == 0:
        raise UserError(
            f"{source}: the text has {len(ids)} tokens, less than one window of {seqlen}; "
            "give a longer text or set a smaller model.context"
        )
    if max_windows is not None:
        count = min(count, max_windows)
    return _checked(ids[: count * seqlen].reshape(count, seqlen), bos, tokenizer, source)


def token_ids(
    text: str, tokenizer: "PreTrainedTokenizerBase", *, special: bool = True
) -> torch.Tensor:
    """Tokenise a text of any length: (T,) int64, with the special tokens the tokenizer adds."""
    # verbose=False: a text longer than the context is the normal case here, not worth a warning.
    ids = tokenizer(text, verbose=False, add_special_tokens=special)["input_ids"]
    return torch.tensor(ids, dtype=torch.long)


def begin_of_text(windows: torch.Tensor, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """The begin-of-text token, None without one, and how many windows start with it."""
    token = tokenizer.bos_token_id
    count = 0 if token is None else int((windows[:, 0] == token).sum())
    return {"token": tokenizer.bos_token, "windows": count}


def _bos(tokenizer: "PreTrainedTokenizerBase") -> int:
    if tokenizer.bos_token_id is None:
        raise UserError(
            "model.add_bos: the tokenizer knows no begin-of-text token; leave the option "
            "out, or name bos_token in the model's tokenizer_config.json"
        )
    return int(tokenizer.bos_token_id)


def _checked(
    windows: torch.Tensor, bos: int | None, tokenizer: "PreTrainedTokenizerBase", source: str
) -> torch.Tensor:
    """The windows, (n, T), each with the token before it if there is one.

    Raises:
        UserError: the tokenizer knows nothing of the text, as one whose vocabulary was not found.
    """
    unknown = tokenizer.unk_token_id
    found = windows[~torch.isin(windows, torch.tensor(tokenizer.all_special_ids))]
    if unknown is not None and not len(found) and (windows == unknown).any():
        raise UserError(
            f"{source}: the tokenizer knows no word of the text; copy all of the model's tokenizer "
            "files beside it, tokenizer.json best"
        )
    if bos is None:
        return windows
    return torch.cat([windows.new_full((len(windows), 1), bos), windows], dim=1)


def tokens_hash(tokens: torch.Tensor) -> str:
    """Return the sha256 of shape and token ids (little-endian int64): the identity of windows."""
    digest = hashlib.sha256(repr(tuple(tokens.shape)).encode())
    digest.update(tokens.cpu().contiguous().numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def text_hash(text: str) -> str:
    """Return the sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the sha256 of what a tokenizer does: its whole description, or else its vocabulary.

    The same wherever its files lie and whichever files they are.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        description = json.loads(backend.to_str())
        # Set by the last call, not by the tokenizer.
        description["padding"] = description["truncation"] = None
    else:
        description = {"vocab": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    text = json.dumps(description, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _too_short(source: str, sizes: Sequence[int], longest: int, seqlen: int) -> str:
    if longest == 0:  # every document was dismissed by its size alone
        found = f"the longest of {len(sizes)} has {max(sizes, default=0)} bytes"
    else:
        found = f"the longest of {len(sizes)} has {longest} tokens"
    return (
        f"{source}: no document is longer than a window of {seqlen} tokens ({found}); "
        "set a smaller model.context or use a source with longer documents"
    )
