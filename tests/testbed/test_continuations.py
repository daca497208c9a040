import json
from collections import Counter

import pytest

from thanos.evaluation.zero_shot import zero_shot
from thanos.testbed import continuations
from thanos.testbed.continuations import (
    CHOICES,
    CONTINUATION_CHARACTERS,
    DATA_FILE,
    TASKS_FOLDER,
    make_items,
    write_items,
)
from thanos.testbed.corpus import Document

TOPICS = ["matrix", "vector", "tensor", "kernel", "graph", "sample"]
TOPICS += ["figure", "column", "engine", "symbol", "buffer", "cursor"]


def document(topic):
    sentence = "The {0} of part {1} is read before every other {0} is written back to its place. "
    paragraphs = [(sentence.format(topic, "abcdefgh"[i]) * 5).strip() for i in range(8)]
    return Document(f"{topic}.py", "heldout", "\n\n".join(paragraphs))


DOCUMENTS = [document(topic) for topic in TOPICS]


@pytest.fixture
def items(monkeypatch):
    monkeypatch.setattr(continuations, "ITEMS", 60)
    return make_items(DOCUMENTS)


def test_the_true_choice_continues_its_document_and_the_others_do_not(items):
    texts = {document.path: document.text for document in DOCUMENTS}
    for item in items:
        true = item.choices[item.answer]
        assert f"{item.context} {true}" in texts[item.path]
        wrong = [choice for choice in item.choices if choice != true]
        assert len(wrong) == CHOICES - 1
        assert not any(choice in texts[item.path] for choice in wrong)


def test_every_continuation_is_wrong_three_times_and_right_once(items):
    right = Counter(item.choices[item.answer] for item in items)
    offered = Counter(choice for item in items for choice in item.choices)
    assert offered == Counter({text: CHOICES * count for text, count in right.items()})


def test_positions_are_balanced_and_lengths_similar(items):
    assert len(items) == 60
    assert Counter(item.answer for item in items) == dict.fromkeys(range(CHOICES), 15)
    lengths = [len(choice) for item in items for choice in item.choices]
    assert max(lengths) <= CONTINUATION_CHARACTERS
    assert min(lengths) > CONTINUATION_CHARACTERS / 2


def test_items_are_spread_over_documents_and_shuffled(items):
    per_document = Counter(item.path for item in items)
    assert set(per_document.values()) == {5}
    assert len({item.path for item in items[:12]}) > 4


def test_items_depend_on_documents_alone(items):
    assert make_items(DOCUMENTS) == items
    assert make_items(DOCUMENTS[::-1]) != items


def test_too_few_documents():
    with pytest.raises(ValueError, match="passages of prose are too few for 4 choices"):
        make_items(DOCUMENTS[:2])
    with pytest.raises(ValueError, match="0 passages"):
        make_items([])


def test_the_task_scores_the_items_that_were_written(items, tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from thanos.testbed.tokenizer import train_tokenizer

    write_items(items, tmp_path / DATA_FILE)
    lines = (tmp_path / DATA_FILE).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["choices"] == list(items[0].choices)

    tokenizer = train_tokenizer([document.text for document in DOCUMENTS], model_max_length=256)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    task = zero_shot(
        LlamaForCausalLM(config),
        tokenizer,
        "doc_continuation",
        include_path=TASKS_FOLDER,
        data_folder=tmp_path,
    )
    assert (task.items, task.version) == (60, "1.0")
    assert task.normalized_accuracy is not None
    # A model that knows nothing is at chance, 25%, within three standard errors.
    assert abs(task.accuracy - 25) < 3 * 5.6
