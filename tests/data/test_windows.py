"""The tokenizer has one token per byte, so that a window of tokens is a piece of text."""

import logging
from collections import Counter

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from thanos.data.windows import (
    cut_windows,
    sample_windows,
    text_hash,
    tokenizer_hash,
    tokens_hash,
)
from thanos.errors import UserError

DOCUMENTS = ["short", "abcdefghijklmnopqrstuvwxyz", "0123456789", "the quick brown fox jumps"]


class CountingTokenizer:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.seen = Counter()

    def __call__(self, text, **options):
        self.seen[text] += 1
        return self.tokenizer(text, **options)


def test_windows_are_pieces_of_the_documents_longer_than_the_window(tokenizer):
    windows = sample_windows(DOCUMENTS, tokenizer, windows=200, seqlen=10, seed=0)
    assert windows.shape == (200, 10)
    assert windows.dtype == torch.long
    origins = Counter()
    for text in tokenizer.batch_decode(windows):
        origins.update(number for number, document in enumerate(DOCUMENTS) if text in document)
    # "0123456789" is as long as the window, not longer.
    assert origins.keys() == {1, 3}
    assert abs(origins[1] - 100) < 40  # documents are drawn evenly, whatever their length


def test_every_offset_is_drawn_from_the_first_to_the_last(tokenizer):
    windows = sample_windows([DOCUMENTS[1]], tokenizer, windows=300, seqlen=22, seed=0)
    starts = Counter(text[0] for text in tokenizer.batch_decode(windows))
    assert starts.keys() == set("abcde")  # 26 letters, windows of 22
    assert min(starts.values()) > 30


def test_the_seed_determines_the_windows(tokenizer):
    def draw(seed):
        return sample_windows(DOCUMENTS, tokenizer, windows=20, seqlen=8, seed=seed)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    # More windows go on where fewer stopped: calibration sizes are nested.
    assert torch.equal(sample_windows(DOCUMENTS, tokenizer, 5, 8, seed=1), draw(1)[:5])


def test_a_document_is_tokenised_at_most_once_and_a_hopeless_one_never(tokenizer):
    counting = CountingTokenizer(tokenizer)
    hopeless = [f"short {i}" for i in range(1000)]
    borderline = ["é" * 12, "b" * 19]  # bytes, not characters, bound the number of tokens
    sample_windows([*hopeless, *borderline, "a" * 50], counting, windows=64, seqlen=20, seed=0)
    assert set(counting.seen) <= {*borderline, "a" * 50}
    assert set(counting.seen.values()) == {1}


def test_no_document_is_long_enough(tokenizer):
    with pytest.raises(UserError) as error:
        sample_windows(DOCUMENTS, tokenizer, windows=1, seqlen=26, seed=0, source="text")
    assert str(error.value) == (
        "text: no document is longer than a window of 26 tokens "
        "(the longest of 4 has 26 tokens); "
        "set a smaller model.context or use a source with longer documents"
    )
    with pytest.raises(UserError, match=r"c4: no document .* \(the longest of 4 has 26 bytes\)"):
        sample_windows(DOCUMENTS, tokenizer, windows=1, seqlen=500, seed=0, source="c4")


def test_evaluation_windows_do_not_overlap_and_drop_the_remainder(tokenizer):
    windows = cut_windows("abcdefghij", tokenizer, seqlen=3)
    assert tokenizer.batch_decode(windows) == ["abc", "def", "ghi"]
    windows = cut_windows("abcdefghij", tokenizer, seqlen=3, max_windows=2)
    assert tokenizer.batch_decode(windows) == ["abc", "def"]


def test_a_text_shorter_than_one_window(tokenizer):
    with pytest.raises(UserError, match="ptb: the text has 10 tokens, less than one window of 11"):
        cut_windows("abcdefghij", tokenizer, seqlen=11, source="ptb")


def test_a_long_text_raises_no_warning_of_the_tokenizer(tokenizer, caplog):
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.DEBUG):
        cut_windows("a" * 100, tokenizer, seqlen=10)
    assert "longer" not in caplog.text


def test_hashes_tell_contents_and_shapes_apart():
    tokens = torch.arange(6).reshape(2, 3)
    assert tokens_hash(tokens) == tokens_hash(tokens.T.contiguous().T)
    assert tokens_hash(tokens) != tokens_hash(tokens.reshape(3, 2))
    assert tokens_hash(tokens) != tokens_hash(tokens + 1)
    assert text_hash("abc").startswith("ba7816bf")  # the test vector of FIPS 180


def test_the_tokenizers_hash_is_of_what_it_does(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "copy")
    copied = PreTrainedTokenizerFast.from_pretrained(tmp_path / "copy")
    copied.pad_token = "a"
    copied("abc", padding="max_length", truncation=True, max_length=2)  # leaves its settings behind
    assert tokenizer_hash(copied) == tokenizer_hash(tokenizer)
    copied.add_tokens(["abc"])
    assert tokenizer_hash(copied) != tokenizer_hash(tokenizer)
