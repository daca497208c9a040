"""Requests scored block by block get lm-eval's own numbers, whatever of the model is in memory."""

import copy
import json
import logging

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, MptConfig, RobertaConfig, RwkvConfig

from thanos.errors import UserError
from thanos.evaluation.block_harness import BlockHarness
from thanos.evaluation.quantization import QuantizedBlocks
from thanos.evaluation.zero_shot import load_task, zero_shot
from thanos.models import BlocksInMemory, StreamedBlocks, load_model, load_tokenizer
from thanos.paths import PROJECT
from thanos.stages.continuations import write_task
from thanos.testbed.continuations import TASKS_FOLDER

MODELS = PROJECT / "thanos" / "testbed" / "models"
_TINY = {"vocab_size": 300, "pad_token_id": 1}
LIMIT = 24  # questions of the testbed's task, of four requests each
ROWS = 5


class Counting(QuantizedBlocks):
    """Counts how often a block is taken."""

    taken = 0

    def take(self, index, device):
        self.taken += 1
        return super().take(index, device)


@pytest.fixture(scope="module", params=["doc-llama", "doc-opt"])
def testbed(request):
    folder = MODELS / request.param
    return folder, load_model(folder, dtype=torch.float32), load_tokenizer(folder)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continuations") / "items"
    write_task(folder)
    return folder


@pytest.fixture
def harnesses(testbed):
    """lm-eval's own; ours on the whole model; ours by blocks, within a budget."""
    folder, model, tokenizer = testbed

    def make(budget):
        source = Counting(StreamedBlocks(folder, dtype=torch.float32), "none")
        plain = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=ROWS)
        ours = [
            BlockHarness(of, copy.deepcopy(tokenizer), ROWS, budget)
            for of in (BlocksInMemory(model), source)
        ]
        return plain, *ours, source

    return make


def instances(kind, *arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=given, idx=i)
        for i, given in enumerate(arguments)
    ]


def requests_of(task):
    task.build_all_requests(limit=LIMIT, rank=0, world_size=1)
    return task.instances


def logs(found):
    return [value for value, _ in found]


def test_the_testbeds_task_by_blocks_and_as_a_whole(testbed, harnesses, items):
    folder, model, tokenizer = testbed
    task = load_task("doc_continuation", None, TASKS_FOLDER, items)["tasks"]["doc_continuation"]
    requests = requests_of(task)
    budget = 4000 * model.config.hidden_size * 4  # bytes of 4000 tokens
    plain, whole, by_blocks, source = harnesses(budget)

    expected = plain.loglikelihood(requests, disable_tqdm=True)
    as_a_whole = whole.loglikelihood(requests, disable_tqdm=True)
    block_wise = by_blocks.loglikelihood(requests, disable_tqdm=True)

    assert block_wise == as_a_whole  # bit for bit
    assert len({value for value, _ in expected}) > LIMIT
    assert logs(block_wise) == pytest.approx(logs(expected), rel=1e-5, abs=1e-5)
    assert [greedy for _, greedy in block_wise] == [greedy for _, greedy in expected]
    # Several passes over the blocks, each for several batches.
    passes, batches = source.taken / len(source.blocks), len(requests) / ROWS
    assert 1 < passes < batches / 2

    options = {"include_path": TASKS_FOLDER, "data_folder": items, "limit": LIMIT}
    results = [
        zero_shot(of, tokenizer, "doc_continuation", batch_size=ROWS, **options)
        for of in (model, StreamedBlocks(folder, dtype=torch.float32))
    ]
    assert results[0] == results[1]
    assert 25 < results[0].accuracy < 100


def test_one_pass_serves_all_requests_where_memory_allows(harnesses):
    _, _, by_blocks, source = harnesses(2**30)
    many = instances("loglikelihood", *((f"word {i} and", f" more {i % 7}") for i in range(60)))

    by_blocks.loglikelihood(many, disable_tqdm=True)

    assert source.taken == len(source.blocks)


def test_a_text_longer_than_the_context_and_odd_requests(testbed, harnesses):
    _, model, _ = testbed
    plain, whole, by_blocks, _ = harnesses(2**30)
    long = "Return the number of rows, or None if there are none. " * 60
    texts = instances("loglikelihood_rolling", (long,), ("Return",), ("A b c.",))
    requests = instances(
        "loglikelihood",
        ("", "Return the value"),  # nothing stands before it
        ("Return the ", "value"),  # a space at the end of the context
        (long, " and stop"),  # cut from the left
        ("Return the value", " as"),  # equal but for the last token
        ("Return the value", " in"),
        ("Return the value", " as"),
    )
    assert len(plain.tok_encode(long)) > model.config.max_position_embeddings

    expected = plain.loglikelihood_rolling(texts, disable_tqdm=True)
    for ours in (whole, by_blocks):
        assert ours.loglikelihood_rolling(texts, disable_tqdm=True) == pytest.approx(
            expected, rel=1e-5
        )
    expected = plain.loglikelihood(requests, disable_tqdm=True)
    for ours in (whole, by_blocks):
        found = ours.loglikelihood(requests, disable_tqdm=True)
        assert logs(found) == pytest.approx(logs(expected), rel=1e-5)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_long_requests_go_in_smaller_batches(harnesses, monkeypatch):
    monkeypatch.setattr("thanos.evaluation.block_harness.TOKENS_PER_ROW", 100)
    _, whole, _, _ = harnesses(0)

    def sizes(*lengths):
        requests = [("", [1] * length, [2]) for length in lengths]
        return [len(batch) for batch in whole._batches(requests)]

    assert sizes(*[100] * 7, *[50] * 5) == [5, 5, 2]
    assert sizes(200, 150, 101, 20) == [2, 2]  # two of 200 are as many tokens; then four of 101
    whole._rows = 1
    assert sizes(200, 200) == [1, 1]  # one longer than its share still goes


def test_generating_by_blocks(testbed, harnesses, caplog):
    plain, whole, by_blocks, source = harnesses(2**30)
    kwargs = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    prompts = ["Return the", "If the array is", "This class", "A", "The number of", "Raises"]
    requests = instances("generate_until", *((prompt, kwargs) for prompt in prompts))

    with caplog.at_level(logging.WARNING):
        block_wise = by_blocks.generate_until(requests, disable_tqdm=True)
    expected = plain.generate_until(requests, disable_tqdm=True)

    assert block_wise == expected == whole.generate_until(requests, disable_tqdm=True)
    assert any(expected)
    assert source.taken > len(source.blocks)
    with pytest.raises(UserError, match="up to 256 tokens, but the model's context has 256"):
        whole.generate_until(instances("generate_until", ("Return", {"until": ["."]})))
    assert "reads the whole model for every token: up to 12 times for 6 requests" in caplog.text


GENERATIVE = """
task: sums
dataset_path: json
dataset_kwargs:
  data_files:
    test: sums.jsonl
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 4
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: first
    filter:
      - function: take_first
  - name: letter
    filter:
      - function: regex
        regex_pattern: "([a-z])"
      - function: take_first
metadata:
  version: 1.0
"""
GROUP = """
group: both
task: [fruit, sums]
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
metadata:
  version: 3.0
"""


@pytest.fixture
def tasks(fruit):
    (fruit / "sums.yaml").write_text(GENERATIVE)
    questions = [{"question": f"{word} is", "answer": "e"} for word in ("one", "two", "six")]
    (fruit / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    (fruit / "both.yaml").write_text(GROUP)
    return fruit


def test_generative_tasks_and_groups(model, tokenizer, tasks):
    sums = zero_shot(model, tokenizer, "sums", include_path=tasks)
    fruit = zero_shot(model, tokenizer, "fruit", include_path=tasks)
    both = zero_shot(model, tokenizer, "both", include_path=tasks)

    assert sums.accuracy is None
    assert list(sums.others) == ["exact_match (first)", "exact_match (letter)"]
    assert all(score.higher_is_better for score in sums.others.values())
    assert (both.accuracy, both.items, both.version) == (fruit.accuracy, 10, "3.0")
    assert both.subtasks == {"fruit": fruit, "sums": sums}


@pytest.mark.parametrize(
    ("pair", "fault"),
    [
        (("Pears are", ""), "its answer '' has no token of its own"),
        (("Pears are", "x" * 200), "its answer has 200 tokens, the model's context 128"),
        (("", ""), "its answer '' has no token"),
        (("  ", "red"), "its context '  ' has no token"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named(model, tokenizer, pair, fault):
    harness = BlockHarness(BlocksInMemory(model), copy.deepcopy(tokenizer), ROWS, 0)
    pairs = [("Apples are", " red"), pair]
    requests = [
        Instance("loglikelihood", {}, pair, 0, metadata=("fruit", number + 7, 1))
        for number, pair in enumerate(pairs)
    ]

    with pytest.raises(UserError, match=f"evaluation.tasks: fruit, item 8: {fault}"):
        harness.loglikelihood(requests)
    assert len(harness.loglikelihood(requests[:1])) == 1


@pytest.mark.parametrize(
    "config",
    [
        MptConfig(**_TINY, max_seq_len=24, d_model=16, n_heads=2, n_layers=1),
        RwkvConfig(**_TINY, context_length=24, hidden_size=16, num_hidden_layers=2),
        RobertaConfig(
            **_TINY,
            max_position_embeddings=26,
            hidden_size=16,
            num_attention_heads=2,
            num_hidden_layers=1,
            is_decoder=True,
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_a_request_is_cut_to_the_context_of_any_family(tokenizer, config):
    """lm-eval would take 2048 where none of three keys says another, and Roberta's as it stands."""
    model = AutoModelForCausalLM.from_config(config).eval()
    harness = BlockHarness(BlocksInMemory(model), copy.deepcopy(tokenizer), ROWS, 0)
    assert harness.max_length == 24
    request = Instance("loglikelihood", {}, ("y" * 40, "x" * 24), 0, metadata=("fruit", 0, 1))
    assert len(harness.loglikelihood([request])) == 1
    assert harness.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("z" * 60,), 0)])
