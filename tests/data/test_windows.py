"""The tokenizer has one token per byte, so that a window of tokens is a piece of text."""

import copy
import logging
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from thanos.data.windows import (
    begin_of_text,
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

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


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


@pytest.fixture
def with_bos(tokenizer):
    """Puts `<` before a text by itself, as LLaMA's does."""
    other = copy.deepcopy(tokenizer)
    other.bos_token = "<"
    post = TemplateProcessing(single="< $A", special_tokens=[("<", other.bos_token_id)])
    other.backend_tokenizer.post_processor = post
    return other


def test_every_window_starts_with_the_begin_of_text_token_on_demand(with_bos):
    plain = cut_windows("abcdefgh", with_bos, seqlen=3)
    asked = cut_windows("abcdefgh", with_bos, seqlen=3, add_bos=True)
    assert with_bos.batch_decode(plain) == ["<ab", "cde", "fgh"]
    assert with_bos.batch_decode(asked) == ["<ab", "<cd", "<ef", "<gh"]
    assert begin_of_text(plain, with_bos) == {"token": "<", "windows": 1}
    assert begin_of_text(asked, with_bos) == {"token": "<", "windows": 4}

    draws = {"windows": 200, "seqlen": 22, "seed": 0}
    drawn = sample_windows([DOCUMENTS[1]], with_bos, **draws, add_bos=True)
    assert drawn.shape == (200, 22)
    assert begin_of_text(drawn, with_bos) == {"token": "<", "windows": 200}
    pieces = {text[1:] for text in with_bos.batch_decode(drawn)}
    assert pieces == {DOCUMENTS[1][start : start + 21] for start in range(6)}  # none with its own


def test_a_tokenizer_without_a_begin_of_text_token(tokenizer):
    assert begin_of_text(cut_windows("abcdef", tokenizer, 3), tokenizer) == {
        "token": None,
        "windows": 0,
    }
    with pytest.raises(UserError, match=r"model\.add_bos: the tokenizer knows no begin"):
        cut_windows("abcdef", tokenizer, 3, add_bos=True)
    with pytest.raises(UserError, match=r"model\.add_bos: the tokenizer knows no begin"):
        sample_windows(DOCUMENTS, tokenizer, 1, 8, seed=0, add_bos=True)


def test_a_tokenizer_that_knows_nothing_of_a_text_is_refused():
    words = Tokenizer(WordLevel({"<unk>": 0, "red": 1}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    knows_red = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")

    assert cut_windows("blue red green", knows_red, 3).tolist() == [[0, 1, 0]]
    with pytest.raises(UserError, match="ptb: the tokenizer knows no word of the text; copy all"):
        cut_windows("blue green grey", knows_red, 3, source="ptb")


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
