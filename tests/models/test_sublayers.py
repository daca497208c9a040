"""Within a block: who shares an input, in which order layers are pruned, what they aim at."""

import copy

import pytest
import torch
from torch.func import functional_call

from thanos.errors import UserError
from thanos.models import FinishedBlocks, StreamedBlocks, find_blocks, linear_layers, prune_model
from thanos.models.activations import input_groups
from thanos.models.experts import ExpertMatrix
from thanos.models.reconstruction import Reconstruction
from thanos.models.replay import record
from thanos.pruning import prune_weight

ROOM = 10**9


def layers_of(model, index=0):
    blocks = find_blocks(model)
    return linear_layers(blocks.modules[index], blocks.name_of(index))


@torch.no_grad()
def groups_of(model, windows):
    blocks = find_blocks(model)
    recording = record(model, blocks, windows, 100)
    run = next(recording.passes(0, blocks.modules[0], "cpu"))
    return [list(group) for group in input_groups(layers_of(model), run)]


def short(groups):
    return [[name.rsplit(".", 1)[1] for name in group] for group in groups]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", ["q_proj k_proj v_proj", "o_proj", "gate_proj up_proj", "down_proj"]),
        ("opt", ["q_proj k_proj v_proj", "out_proj", "fc1", "fc2"]),
        ("gpt2", ["c_attn", "c_proj", "c_fc", "c_proj"]),
        ("phi3", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
        # Attention and MLP side by side, on one norm's output.
        ("phi", ["q_proj k_proj v_proj fc1", "dense", "fc2"]),
        ("falcon-7b", ["query_key_value dense_h_to_4h", "dense", "dense_4h_to_h"]),
    ],
)
def test_groups_of_families(tiny, windows, family, expected):
    found = {frozenset(group) for group in short(groups_of(tiny(family), windows))}
    assert found == {frozenset(group.split()) for group in expected}


def test_groups_are_those_of_the_tensors_whatever_the_family(any_dense_model, windows):
    """By the addresses that a whole pass of the model's own shows, all inputs kept alive."""
    inputs = {}
    for name, layer in layers_of(any_dense_model).items():
        layer.module.register_forward_pre_hook(
            lambda module, args, name=name: inputs.setdefault(name, args[0])
        )
    any_dense_model(input_ids=windows, use_cache=False)
    expected = {}
    for name, x in inputs.items():
        expected.setdefault((x.data_ptr(), x.shape), []).append(name)

    groups = groups_of(any_dense_model, windows)

    assert groups == list(expected.values())


def test_experts_are_two_groups_after_the_attention(any_mixture, windows):
    groups = short(groups_of(any_mixture, windows))
    assert [sorted({*group}) for group in groups] == [
        ["k_proj", "q_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]
    assert sum(map(len, groups)) == len(layers_of(any_mixture))


class Watching:
    """Prunes by half; compares the statistics of each layer with those of the model itself."""

    def __init__(self, model, windows, order, correction):
        self.model, self.windows = model, windows
        self.dense = copy.deepcopy(model)
        self.order, self.correction = order, correction
        self.layers = {}
        blocks = find_blocks(model)
        for index in range(len(blocks)):
            self.layers |= layers_of(model, index)
        self.seen = []

    def inputs(self, model, name, parameters=None):
        """What a layer gets in a whole pass of a model, (tokens, b) float64."""
        found = []
        module = model.get_submodule(name)
        handle = module.register_forward_pre_hook(
            lambda module, args: found.append(args[0].detach().flatten(0, -2).double())
        )
        functional_call(model, parameters or {}, kwargs={"input_ids": self.windows})
        handle.remove()
        return found[0]

    def expected(self, name):
        blocks = find_blocks(self.model).name
        its = ".".join(name.removeprefix(f"{blocks}.").split(".")[:1])
        before = {}
        if self.order == "block":  # the block that the layer is in still as it was
            start = f"{blocks}.{its}."
            before = {n: p for n, p in self.dense.named_parameters() if n.startswith(start)}
        X = self.inputs(self.model, name, before)
        return X, self.inputs(self.dense, name)

    def __call__(self, weight, statistics):
        (name,) = (
            name
            for name, layer in self.layers.items()
            if name not in self.seen and torch.equal(layer.weight, weight)
        )
        self.seen.append(name)
        X, dense = self.expected(name)
        scale = float((X.T @ X).abs().max())
        assert torch.allclose(statistics.gram, X.T @ X, rtol=1e-4, atol=1e-5 * scale)
        if self.correction:
            C = (dense - X).T @ X
            assert torch.allclose(statistics.cross, C, rtol=1e-3, atol=1e-5 * scale)
        return prune_weight(weight, statistics, "wanda", "0.5")


@pytest.mark.parametrize(
    ("order", "correction", "room"),
    [
        *(("block", False, 0), ("sublayer", False, 0)),
        *(("block", True, 0), ("sublayer", True, 0), ("sublayer", True, ROOM)),
    ],
)
@pytest.mark.parametrize("family", ["llama", "opt", "gemma2", "phi", "gpt2", "qwen3"])
def test_every_layer_sees_what_the_model_gives_it(tiny, windows, family, order, correction, room):
    """Under "sublayer" the model as it is pruned so far, to the last layer; dense for the aim."""
    model = tiny(family)
    watching = Watching(model, windows, order, correction)

    records = prune_model(
        model,
        windows,
        watching,
        statistics="gram",
        statistics_dtype=torch.float64,
        batch_size=2,
        order=order,
        correction=correction,
        hidden_budget=room,
    )

    assert {*watching.seen} == {*watching.layers}
    assert [record.name for record in records] == [*watching.layers]


def corrected_2_4(weight, statistics):
    return prune_weight(weight, statistics, "thanos", "2:4", correction=0.5)


OPTIONS = {"statistics": "gram", "batch_size": 2, "order": "sublayer", "correction": True}


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("family", ["llama-tied-biased", "gpt2", "gemma2"])
def test_streamed_and_resumed_it_is_what_it_is_in_memory(tiny, family, steps, windows, tmp_path):
    """After each block a run goes on from the disk: pruned blocks, and dense ones to aim at."""
    model = tiny(family)
    options = {**OPTIONS, "reconstruction": Reconstruction(steps, 1e-2) if steps else None}
    (tmp_path / "dense").mkdir()
    model.save_pretrained(tmp_path / "dense")
    for _ in range(3):
        finished = FinishedBlocks(tmp_path / "work", {"run": 1})
        source = StreamedBlocks(tmp_path / "dense", finished=finished)
        already = len(finished)

        def stop_after_one(weight, statistics, finished=finished, already=already):
            if len(finished) > already:
                raise KeyboardInterrupt
            return corrected_2_4(weight, statistics)

        try:
            prune_model(source, windows, stop_after_one, done=finished.records, **options)
        except KeyboardInterrupt:
            assert len(finished) == already + 1

    prune_model(model, windows, corrected_2_4, **options)

    blocks = find_blocks(model)
    for index, block in enumerate(blocks.modules):
        kept = StreamedBlocks(tmp_path / "dense", finished=finished).take(index, "cpu")
        for name, value in block.state_dict().items():
            assert torch.equal(kept.state_dict()[name], value), name


@torch.no_grad()
def pruned_with_room(model, windows, room):
    """The model, and how often each block's dense twin runs, in all batches together."""
    runs = [[] for _ in find_blocks(model).modules]
    for index, block in enumerate(find_blocks(model).modules):
        block.register_forward_pre_hook(
            lambda module, args, index=index: runs[index].append(id(module))
        )
    more = {"hidden_budget": room, "data_free": data_free}
    prune_model(model, windows, corrected_2_4, **{**OPTIONS, "batch_size": 1}, **more)
    own = [id(block) for block in find_blocks(model).modules]
    return model, [len(seen) - seen.count(o) for seen, o in zip(runs, own, strict=True)]


def data_free(weight, _):
    return prune_weight(weight, None, "magnitude", "2:4")


def test_the_dense_model_runs_once_where_there_is_room_for_what_its_layers_get(any_model, windows):
    """By all families: the same bits. What has room is counted to the byte."""
    groups = groups_of(any_model, windows)
    layers = [layers_of(any_model)[names[0]] for names in groups]
    experts = any(isinstance(layer, ExpertMatrix) for layer in layers)  # in whose module all is
    widths = sum(layer.shape[1] for layer in layers if not isinstance(layer, ExpertMatrix))
    hidden = record(any_model, find_blocks(any_model), windows, 1).hidden
    widths += hidden[0].shape[-1] * experts
    states = sum(each.nbytes for each in hidden)
    room = 2 * states + states // hidden[0].shape[-1] * widths

    (short, often), (kept, once), (_, always) = (
        pruned_with_room(copy.deepcopy(any_model), windows, each) for each in (room - 1, room, ROOM)
    )

    count = len(windows)
    assert once[0] == count
    assert often[0] == count * (len(groups) + 1)
    assert always == [count] * len(always)  # wider blocks may follow that need more
    for name, value in kept.state_dict().items():
        assert torch.equal(value, short.state_dict()[name]), name


@pytest.mark.parametrize("room", [0, ROOM])
def test_a_mixture_is_corrected_on_the_tokens_that_are_routed(any_mixture, room):
    """The dense model's values of the very tokens that an expert gets in the pruned one."""
    windows = torch.randint(0, 60, (40, 10), generator=torch.Generator().manual_seed(1))
    dense, seen = copy.deepcopy(any_mixture), []

    def prune(weight, statistics):
        seen.append(statistics)
        return prune_weight(weight, None, "magnitude", "0.5")

    prune_model(
        any_mixture,
        windows,
        prune,
        statistics="gram",
        statistics_dtype=torch.float64,
        data_free=prune,
        batch_size=100,
        order="sublayer",
        correction=True,
        hidden_budget=room,
    )

    # The last group of block 0 was pruned with all others of the block done: run both again.
    model, found = any_mixture, []
    for each in (model, dense):
        each.model.layers[0].mlp.experts.register_forward_pre_hook(
            lambda module, args: found.append((module, args))
        )
        each(input_ids=windows, use_cache=False)
    (module, (hidden, chosen, _)), (twin, (dense_hidden, _, _)) = found
    names = list(layers_of(model))
    downs = [n for n, layer in layers_of(model).items() if isinstance(layer, ExpertMatrix)]
    # Statistics come in the order of pruning: attention, gate and up of all experts, down.
    order = [n for n in names if n not in downs]
    order += [n for n in downs if not n.endswith("down_proj")]
    order += [n for n in downs if n.endswith("down_proj")]
    for name, statistics in zip(order, seen, strict=False):
        if not name.endswith("down_proj"):
            continue
        expert = int(name.split(".")[-2])
        tokens = (chosen == expert).any(1)
        inner = [
            m._apply_gate(x[tokens] @ m.gate_up_proj[expert].T).detach().double()
            for m, x in ((module, hidden), (twin, dense_hidden))
        ]
        C = (inner[1] - inner[0]).T @ inner[0]
        assert torch.allclose(statistics.cross, C, rtol=1e-3, atol=1e-4)


def test_a_layer_that_gets_no_input_is_named(tiny, windows):
    model = tiny("llama")
    model.model.layers[0].mlp.spare = torch.nn.Linear(32, 32)
    with pytest.raises(UserError, match=r"mlp\.spare receives no input"):
        prune_model(model, windows, corrected_2_4, **OPTIONS)
