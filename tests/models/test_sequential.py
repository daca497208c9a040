import copy
import logging
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers, prune_model
from thanos.models.experts import ExpertMatrix, parameter_of
from thanos.pruning import PruningError, prune_weight


@dataclass(frozen=True)
class Halved:
    weight: Tensor
    relative_error: float | None = 0.25
    damping: float | None = None
    details: dict = field(default_factory=dict)


def halve(weight, inputs) -> Halved:
    """Zero the smaller half of the weights."""
    pruned = weight.clone()
    pruned.view(-1)[weight.abs().flatten().argsort()[: weight.numel() // 2]] = 0
    return Halved(pruned)


def all_layers(model):
    blocks = find_blocks(model)
    return {
        name: layer
        for index, block in enumerate(blocks.modules)
        for name, layer in linear_layers(block, blocks.name_of(index)).items()
    }


def parameter(layer):
    """The name of the parameter that holds a layer's weight."""
    return parameter_of(layer.name) if isinstance(layer, ExpertMatrix) else f"{layer.name}.weight"


def test_prune_save_and_open_again(any_model, windows, tmp_path):
    before = {name: value.clone() for name, value in any_model.named_parameters()}
    dense = any_model(input_ids=windows).logits

    records = prune_model(
        any_model, windows, halve, statistics="gram", batch_size=2, data_free=halve
    )

    layers = all_layers(any_model)
    assert [record.name for record in records] == list(layers)
    assert [record.block for record in records] == sorted(record.block for record in records)
    for record in records:
        weight = layers[record.name].weight
        assert record.shape == weight.shape
        assert record.sparsity == 0.5
        assert int((weight == 0).sum()) == weight.numel() // 2
    changed = {n for n, p in any_model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {parameter(layer) for layer in layers.values()}
    in_memory = any_model(input_ids=windows).logits
    assert not torch.equal(in_memory, dense)

    any_model.save_pretrained(tmp_path)
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()

    assert torch.equal(reloaded(input_ids=windows).logits, in_memory)


def test_each_block_is_calibrated_on_the_pruned_blocks_before_it(tiny, windows):
    model, seen = tiny("llama"), {}

    def keep_statistics(weight, inputs):
        seen[len(seen)] = inputs.gram.clone()
        return halve(weight, inputs)

    prune_model(model, windows, keep_statistics, statistics="gram", batch_size=2)

    # Layer 7 is the first of block 1: its inputs are those of the model whose block 0 is pruned.
    inputs = []
    q_proj = model.model.layers[1].self_attn.q_proj
    q_proj.register_forward_pre_hook(lambda module, args: inputs.append(args[0].flatten(0, 1)))
    model(input_ids=windows, use_cache=False)
    assert torch.allclose(seen[7], inputs[0].T @ inputs[0], rtol=1e-4, atol=1e-4)


def test_batch_size_does_not_change_the_result(tiny, windows):
    results = []
    for batch_size in (1, 2, 5, 100):
        model = tiny("gemma2")
        prune_model(
            model,
            windows,
            lambda weight, inputs: prune_weight(weight, inputs, method="wanda", pattern="0.5"),
            statistics="diagonal",
            batch_size=batch_size,
            statistics_dtype=torch.float64,
        )
        results.append(model(input_ids=windows).logits)

    assert all(torch.allclose(logits, results[0], atol=1e-4) for logits in results[1:])


def test_no_statistics_no_forward_pass(tiny):
    model, inputs_seen = tiny("llama"), []

    def refuse(*args):
        raise AssertionError("the model ran")

    for module in model.modules():
        module.register_forward_pre_hook(refuse)

    def prune(weight, inputs):
        inputs_seen.append(inputs)
        return halve(weight, inputs)

    records = prune_model(model, None, prune, statistics="none")

    assert len(records) == len(inputs_seen) == 21
    assert set(inputs_seen) == {None}


@pytest.mark.parametrize(("statistics", "has_gram"), [("diagonal", False), ("gram", True)])
def test_only_the_statistics_asked_for_are_gathered(tiny, windows, statistics, has_gram):
    seen = []

    def prune(weight, inputs):
        seen.append(inputs.has_gram)
        return halve(weight, inputs)

    prune_model(tiny("llama"), windows, prune, statistics=statistics)

    assert set(seen) == {has_gram}


def test_the_last_block_runs_once_and_the_others_twice(tiny, windows):
    model = tiny("llama")
    runs = [0, 0, 0]
    for index, block in enumerate(model.model.layers):
        block.mlp.register_forward_pre_hook(
            lambda _, args, index=index: runs.__setitem__(
                index, runs[index] + (len(args[0]) == 5 and not args[0].is_meta)
            )
        )

    prune_model(model, windows, halve, statistics="gram", batch_size=5)

    assert runs == [2, 2, 1]  # beside the rehearsal on the meta device and the probe of one window


@torch.no_grad()
def test_what_no_layer_reads_is_not_computed(any_dense_model, windows):
    """The layer that a block reaches last runs where its outputs are the next block's inputs."""
    begun, finished = {}, Counter()

    def whole(x):
        return not x.is_meta and x.shape[:-1].numel() == windows.numel()

    def begin(name):
        return lambda _, args: begun.update({name: whole(args[0]) and len(begun)})

    def finish(name):
        return lambda _, args, __: finished.update([name] if whole(args[0]) else [])

    for name, layer in all_layers(any_dense_model).items():
        layer.module.register_forward_pre_hook(begin(name))
        layer.module.register_forward_hook(finish(name))
    prune_model(any_dense_model, windows, halve, statistics="gram", batch_size=len(windows))

    for index, block in enumerate(find_blocks(any_dense_model).names):
        names = [name for name in begun if name.startswith(f"{block}.")]
        last = finished[names[-1]]
        assert last == (index < 2)
        assert all(finished[name] == last + 1 for name in names[:-1])


def test_where_a_pass_ends_changes_nothing(any_model, windows, monkeypatch):
    other = copy.deepcopy(any_model)

    def prune(weight, inputs):
        return prune_weight(weight, inputs, method="sparsegpt", pattern="0.5")

    options = {"statistics": "gram", "batch_size": 2, "data_free": halve}
    records = prune_model(any_model, windows, prune, **options)
    monkeypatch.setattr("thanos.models.activations.end_after", lambda enough: lambda name: None)
    expected = prune_model(other, windows, prune, **options)

    assert [replace(record, seconds=0) for record in records] == [
        replace(record, seconds=0) for record in expected
    ]
    for name, weight in other.state_dict().items():
        assert torch.equal(any_model.state_dict()[name], weight), name


def test_half_precision_model_stays_half_and_finite(tiny, windows):
    model = tiny("llama").to(torch.float16)

    records = prune_model(
        model,
        windows,
        lambda weight, inputs: prune_weight(weight, inputs, method="thanos", pattern="2:4"),
        statistics="gram",
    )

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert all(record.sparsity >= 0.5 for record in records)
    assert torch.isfinite(model(input_ids=windows).logits).all()


def test_records_carry_what_the_method_reports(tiny, windows):
    records = prune_model(
        tiny("llama"),
        windows,
        lambda w, inputs: Halved(w, relative_error=0.5, damping=0.1, details={"iterations": 3}),
        statistics="gram",
    )

    assert (records[0].relative_error, records[0].damping) == (0.5, 0.1)
    assert records[0].details == {"iterations": 3}
    assert records[0].sparsity == 0  # the true share of zeros, whatever the method claims
    assert records[0].seconds >= 0


def test_progress_is_one_log_line_per_layer_without_a_terminal(tiny, windows, caplog, capfd):
    with caplog.at_level(logging.INFO, logger="thanos"):
        prune_model(tiny("llama"), windows, halve, statistics="gram")

    lines = [record.message for record in caplog.records if record.name.startswith("thanos")]
    layers = [line for line in lines if line.startswith("pruned ")]
    assert len(layers) == 21
    assert layers[0].startswith("pruned model.layers.0.self_attn.q_proj: relative error 0.25")
    blocks = [line for line in lines if line not in layers]
    assert [line.partition(",")[0] for line in blocks] == [
        "block 1 of 3 finished",
        "block 2 of 3 finished",
    ]
    assert all(line.endswith("s left") for line in blocks)
    assert "block" not in capfd.readouterr().err  # no progress bar


def test_skipped_layers_stay_dense(tiny, windows):
    model = tiny("llama")
    dense = model.model.layers[0].mlp.down_proj.weight.clone()

    records = prune_model(model, windows, halve, statistics="gram", skip=("down_proj",))

    assert len(records) == 18
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, dense)


def test_refused_model_is_left_untouched(tiny, windows):
    model = tiny("llama")
    model.model.layers[2].adapter = torch.nn.Embedding(3, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(UserError, match=r"layers\.2\.adapter"):
        prune_model(model, windows, halve, statistics="gram")

    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@torch.no_grad()
def test_non_finite_weight_names_its_layer(tiny):
    model = tiny("llama")
    model.model.layers[1].self_attn.o_proj.weight[0, 0] = torch.nan

    with pytest.raises(UserError, match=r"weight of model\.layers\.1\.self_attn\.o_proj .*NaN"):
        prune_model(model, None, halve, statistics="none")


@torch.no_grad()
def test_non_finite_activation_names_layer_and_block(tiny, windows):
    model = tiny("llama")
    model.model.layers[1].post_attention_layernorm.weight[3] = torch.inf

    with pytest.raises(UserError, match=r"inputs of model\.layers\.1\.mlp\.gate_proj hold NaN"):
        prune_model(model, windows, halve, statistics="diagonal")


def test_non_finite_result_names_its_layer(tiny):
    with pytest.raises(UserError, match=r"pruned weight of model\.layers\.0\.self_attn\.q_proj"):
        prune_model(tiny("llama"), None, lambda w, _: Halved(w / 0), statistics="none")


def test_pruning_error_is_prefixed_with_the_layers_name(tiny):
    def fail(weight, inputs):
        raise PruningError("34 columns are no multiple of 4")

    with pytest.raises(UserError, match=r"^model\.layers\.0\.self_attn\.q_proj: 34 columns are no"):
        prune_model(tiny("llama"), None, fail, statistics="none")


def test_out_of_memory_comes_with_a_remedy(tiny, windows):
    def fail(weight, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"model\.layers\.0: out of memory on cpu; lower the batch"):
        prune_model(tiny("llama"), windows, fail, statistics="gram")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "at least one window"),
        (torch.empty(0, 10, dtype=torch.long), "at least one window"),
        (torch.full((1, 10), 64), "token 64 is outside the model's vocabulary of 64"),
        (torch.zeros(1, 65, dtype=torch.long), "windows of 65 tokens .* context of 64"),
    ],
)
def test_windows_that_do_not_fit_the_model(tiny, bad, message):
    with pytest.raises(UserError, match=message):
        prune_model(tiny("opt"), bad, halve, statistics="gram")


class Counting:
    """A source that records who asks for which block, as a streaming one would have to."""

    def __init__(self, model):
        self.model, self.blocks, self.log = model, find_blocks(model), []

    def take(self, index, device):
        self.log.append(("take", index, str(device)))
        return self.blocks.modules[index]

    def give_back(self, index, block, records):
        self.log.append(("give back", index, len(records)))


def test_blocks_are_taken_and_given_back_one_at_a_time(tiny, windows):
    source = Counting(tiny("llama"))

    prune_model(source, windows, halve, statistics="gram", device="cpu")

    expected = [[("take", index, "cpu"), ("give back", index, 7)] for index in range(3)]
    assert source.log == [step for steps in expected for step in steps]
