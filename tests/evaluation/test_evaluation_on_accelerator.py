"""Evaluation on an accelerator: the numbers of the host, whatever of the model lies there."""

import copy
import itertools

import pytest
import torch
from lm_eval.api.instance import Instance

from thanos.accelerator import allocated_memory, is_accelerator
from thanos.evaluation import efficiency
from thanos.evaluation.block_harness import BlockHarness
from thanos.evaluation.perplexity import perplexity, perplexity_of_logits
from thanos.evaluation.quantization import QuantizedBlocks, quantize_model
from thanos.evaluation.zero_shot import zero_shot
from thanos.models import (
    BlocksInMemory,
    StreamedBlocks,
    load_model,
    logits_by_blocks,
    prune_model,
)
from thanos.pruning import parse_pattern, prune_weight
from thanos.stages.efficiency import compare

WINDOWS = torch.randint(0, 250, (6, 24), generator=torch.Generator().manual_seed(1))
# Of a loss in nats per token: rounding alone, or activations and weights off by 2⁻¹¹ or 2⁻⁸.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 0.01, torch.bfloat16: 0.05}


def with_each_dtype(name, values, *fast):
    """Every value with every precision; what is not among the fast ones is for the slow tests."""
    return pytest.mark.parametrize(
        ("dtype", name),
        [
            pytest.param(*pair, marks=[] if pair in fast else pytest.mark.slow)
            for pair in itertools.product(TOLERANCES, values)
        ],
    )


@pytest.fixture
def stored(model, tokenizer, tmp_path):
    """Writes the random model in some precision."""

    def store(dtype):
        folder = tmp_path / "stored"
        copy.deepcopy(model).to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return store


def loss_by_blocks(folder, device, dtype, quantization="none"):
    source = QuantizedBlocks(StreamedBlocks(folder, dtype=dtype, device=device), quantization)
    return perplexity_of_logits(logits_by_blocks(source, WINDOWS, 4, device), WINDOWS).loss


@with_each_dtype(
    *("quantization", ("none", "int8", "int4")),
    *((torch.float32, "none"), (torch.float16, "int8"), (torch.bfloat16, "int4")),
)
def test_perplexity_by_blocks_and_as_a_whole(accelerator, stored, dtype, quantization):
    folder = stored(dtype)
    by_blocks = loss_by_blocks(folder, accelerator, dtype, quantization)
    model = StreamedBlocks(folder, dtype=dtype).load_whole(accelerator)
    quantize_model(model, quantization)
    whole = perplexity(model, WINDOWS, batch_size=4).loss
    expected = loss_by_blocks(folder, "cpu", torch.float64, quantization)

    assert whole == pytest.approx(expected, abs=TOLERANCES[dtype])
    assert by_blocks == pytest.approx(expected, abs=TOLERANCES[dtype])
    assert {p.device for p in model.parameters()} == {accelerator}


@with_each_dtype("task", ("fruit",))  # the commands score a task among the fast tests
def test_zero_shot_by_blocks_and_as_a_whole(accelerator, stored, tokenizer, fruit, dtype, task):
    folder = stored(dtype)
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=given, idx=i)
        for i, given in enumerate([("One", " two"), ("One", " three"), ("A longer text", "!")])
    ]
    found = []
    for device, kept in ((accelerator, dtype), ("cpu", torch.float64)):
        source = StreamedBlocks(folder, dtype=kept, device=device)
        whole = BlocksInMemory(StreamedBlocks(folder, dtype=kept).load_whole(device))
        for each in (source, whole):
            harness = BlockHarness(each, copy.deepcopy(tokenizer), 2, 2**20)
            assert is_accelerator(harness.device) == (device is accelerator)
            found.append([value for value, _ in harness.loglikelihood(requests, True)])
            answered = zero_shot(each, tokenizer, task, include_path=fruit, batch_size=3)
            assert answered.items == 7
    by_blocks, as_a_whole, *expected = found
    scale = abs(max(expected[0], key=abs))
    for values in (by_blocks, as_a_whole):
        assert values == pytest.approx(expected[0], abs=TOLERANCES[dtype] * scale)


@pytest.mark.slow
def test_generation_by_blocks_and_as_a_whole(accelerator, stored, tokenizer):
    folder = stored(torch.float32)
    asked = ("One two", {"until": ["\n"], "max_gen_toks": 4, "do_sample": False})
    requests = [Instance(request_type="generate_until", doc={}, arguments=asked, idx=0)]
    texts = []
    for device in (accelerator, "cpu"):
        source = StreamedBlocks(folder, device=device)
        whole = BlocksInMemory(StreamedBlocks(folder).load_whole(device))
        for each in (source, whole):
            harness = BlockHarness(each, copy.deepcopy(tokenizer), 2, 2**20)
            texts += harness.generate_until(requests, disable_tqdm=True)
    assert len(set(texts)) == 1
    assert texts[0]


@with_each_dtype("alpha", (0.0, 0.2), (torch.bfloat16, 0.2))
def test_latency_of_the_compact_form(accelerator, stored, monkeypatch, dtype, alpha):
    monkeypatch.setattr(efficiency, "_MOST_ROUNDS", 1)
    dense, pruned = (load_model(stored(dtype), "auto") for _ in range(2))

    def prune(weight, inputs):
        options = {"outlier_fraction": alpha, "outlier_score": "separable"}
        return prune_weight(weight, inputs, "wanda", "structured:0.25", **options)

    prune_model(pruned, WINDOWS, prune, statistics="diagonal")
    pattern = parse_pattern("structured:0.25")

    found = compare(dense, pruned, pattern, 24, accelerator)

    assert found["form"] == "compact"
    assert found["computed_in"] == str(dtype).removeprefix("torch.")
    assert found["parameters"]["compact"] < found["parameters"]["dense"]
    assert found["logits_difference"] < TOLERANCES[dtype] * 20
    assert {p.device for p in pruned.parameters()} == {accelerator}


def test_a_block_gives_its_memory_back(accelerator, stored):
    folder = stored(torch.float32)
    before = allocated_memory(accelerator)
    loss_by_blocks(folder, accelerator, torch.float32)
    assert allocated_memory(accelerator) == before
