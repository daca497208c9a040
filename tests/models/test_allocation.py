"""Sparsities that differ over layers: measured on the dense model, the same in all."""

import copy
import itertools
import math

import pytest
import torch
from transformers import LlamaConfig

from thanos import prune
from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers
from thanos.pruning import InputStatistics, SemiStructured, prune_weight
from thanos.pruning.allocation import (
    allocate,
    allocate_groups,
    kept_for_errors,
    kept_for_outliers,
    outlier_share,
    unit_sizes,
)

PATTERN = SemiStructured(4, 8)
_MEASURED = ("method", "refine_steps", "outlier_fraction")  # options that change a layer's error


@pytest.fixture
def llama(custom):
    """Three blocks with outliers, and token ids to calibrate on."""
    config = LlamaConfig(
        **{"vocab_size": 64, "hidden_size": 32, "intermediate_size": 56},
        **{"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64},
    )
    model = custom(config)
    with torch.no_grad():
        for index, block in enumerate(model.model.layers):
            for parameter in block.parameters():
                if parameter.dim() == 2:
                    parameter.view(-1)[:: 37 + 20 * index] *= 20
    return model, torch.randint(0, 60, (4, 16), generator=torch.Generator().manual_seed(1))


def test_outliers_are_counted_over_all_layers_of_a_unit():
    W = torch.ones(4, 10)
    W[0, 0] = 100.0
    squares = torch.full((10,), 4.0)
    # The mean of both is (2·(39 + 100) + 2·40) / 80 = 4.475; one score of 80 is above 5 of it.
    assert outlier_share([(W, squares), (torch.ones(4, 10), squares)]) == 1 / 80
    # One that is large in a layer of its own is not where everything is as large.
    assert outlier_share([(100 * torch.ones(4, 10), squares), (W, squares)]) == 0


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.1])
def test_as_many_weights_are_removed_whatever_the_spread(spread):
    sizes = {"a.q": 101, "a.k": 77, "b.q": 400, "c.q": 333}
    unit_of = {name: name[0] for name in sizes}
    measures = {"a": 0.1, "b": 0.2, "c": 0.4}
    found = allocate(sizes, unit_of, kept_for_outliers(measures, spread), 0.6)
    removed = {name: math.floor(found[name].p * size) for name, size in sizes.items()}
    assert sum(removed.values()) == math.floor(0.6 * sum(sizes.values()))
    # By the measure: 0 of 2 λ, a third of it, all of it, around the mean over all weights.
    above = {"a": 0.0, "b": 2 * spread / 3, "c": 2 * spread}
    mean = sum(size * above[name[0]] for name, size in sizes.items()) / sum(sizes.values())
    for name, size in sizes.items():
        assert removed[name] / size == pytest.approx(0.6 + mean - above[name[0]], abs=1.01 / size)


def test_no_weights_of_one_unit_are_better_kept_than_those_of_another():
    """Of units of several sizes: whatever changes places makes the sum of errors larger."""
    sizes = {"q": 4000, "k": 1000, "up": 11000, "down": 11000}
    errors = {"q": 0.3, "k": 0.2, "up": 0.5, "down": 2.0}
    kept = kept_for_errors(errors, sizes, 0.08)
    found = allocate(sizes, {name: name for name in sizes}, kept, 0.5)
    removed = {name: math.floor(found[name].p * size) for name, size in sizes.items()}

    def lost(removed):
        return sum(errors[n] * math.exp(removed[n] / sizes[n] / 0.08) for n in sizes)

    for more, less in itertools.permutations(sizes, 2):
        assert lost({**removed, more: removed[more] + 5, less: removed[less] - 5}) > lost(removed)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("spread", [0.02, 0.08, 0.3])
def test_groups_lose_as_little_as_steps_allow(n, spread):
    """Against every way to share out n of 8: of four units of one size, and of two of another."""
    errors = {"a": 0.01, "b": 0.4, "c": 0.1, "d": 0.02, "e": 1.0, "f": 0.001}
    units = {name: name[0] for name in ("a.q", "b.q", "c.q", "d.q", "e.up", "f.up", "a.k", "b.k")}
    units |= {"c.k": "c", "d.k": "d"}
    sizes = {name: {"q": 64, "k": 32}.get(name[2:], 160) for name in units}
    kept = kept_for_errors(errors, unit_sizes(sizes, units), spread)
    found = allocate_groups(sizes, units, kept, SemiStructured(n, 8))
    assert {pattern.m for pattern in found.values()} == {8}
    assert all(found[name] == found[f"{name[0]}.k"] for name in ("a.q", "b.q", "c.q", "d.q"))

    def lost(kept):
        return sum(e * math.exp((1 - k / 8) / spread) for e, k in zip(of_class, kept, strict=True))

    for class_ in (("a.q", "b.q", "c.q", "d.q"), ("e.up", "f.up")):
        of_class = [errors[name[0]] for name in class_]
        kept = [found[name].n for name in class_]
        assert sum(kept) == n * len(class_)
        least = math.ceil(n / 2)
        ways = itertools.product(range(least, 8), repeat=len(class_))
        best = min(lost(way) for way in ways if sum(way) == n * len(class_))
        assert lost(kept) == pytest.approx(best, rel=1e-9)


def test_groups_of_alike_units_are_alike():
    sizes = dict.fromkeys("abc", 16)
    found = allocate_groups(sizes, {u: u for u in "abc"}, dict.fromkeys("abc", 0.0), PATTERN)
    assert set(found.values()) == {PATTERN}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "thanos"},
        {"method": "magnitude", "allocation_unit": "layer"},
        {"method": "wanda", "outlier_fraction": 0.1},
        {"method": "sparsegpt", "allocation_unit": "layer"},
        {"method": "thanos-plus", "allocation_unit": "block", "allocation_spread": 0.3},
    ],
    ids=lambda options: options["method"],
)
@pytest.mark.parametrize("kind", ["owl", "error"])
def test_mixed_groups_keep_as_much_as_equal_ones(llama, kind, options):
    model, ids = llama
    given = {"allocation_spread": 0.12, **options, "allocation": kind}
    rows = prune(model, ids, pattern=PATTERN, allocation_mixed=True, **given).record["layers"]
    layers = {
        name: layer
        for index, block in enumerate(find_blocks(model).modules)
        for name, layer in linear_layers(block, f"model.layers.{index}").items()
    }
    kept, total = {}, 0
    for row in rows:
        groups = (layers[row["layer"]].weight != 0).unflatten(1, (-1, PATTERN.m)).sum(-1)
        most = groups.amax(1).sort().values  # of every row; outlier rows are dense
        kept[row["layer"]] = int(most[: len(most) - row["details"]["outlier_rows"]].max())
        total += int(kept[row["layer"]] * math.prod(row["shape"]))
    assert total == PATTERN.n * sum(math.prod(row["shape"]) for row in rows)
    assert len(set(kept.values())) > 1
    if options.get("allocation_unit") != "layer":
        assert len({(row["block"], kept[row["layer"]]) for row in rows}) == 3


@pytest.mark.parametrize(("spread", "said"), [(1e-6, True), (0.5, False)])
def test_one_line_says_that_no_step_was_worth_it(llama, caplog, spread, said):
    model, ids = llama
    options = {"allocation": "error", "allocation_mixed": True, "allocation_spread": spread}
    record = prune(model, ids, method="wanda", pattern=PATTERN, **options).record
    assert (len({row["sparsity"] for row in record["layers"]}) == 1) == said
    lines = [line.message for line in caplog.records if "every layer keeps 4:8" in line.message]
    assert len(lines) == said


@pytest.mark.parametrize("unit", ["block", "layer"])
@pytest.mark.parametrize("kind", ["owl", "error"])
def test_a_model_loses_as_much_as_without(llama, kind, unit):
    model, ids = llama
    pruned = copy.deepcopy(model)
    options = {"allocation": kind, "allocation_unit": unit}
    record = prune(pruned, ids, method="thanos", pattern=0.5, **options).record
    zeros = {row["layer"]: row["sparsity"] * math.prod(row["shape"]) for row in record["layers"]}
    total = sum(math.prod(row["shape"]) for row in record["layers"])
    assert round(sum(zeros.values())) == total // 2
    by_block = {row["layer"]: row["block"] for row in record["layers"]}
    shares = [
        sum(z for name, z in zeros.items() if by_block[name] == block) / (total / 3)
        for block in range(3)
    ]
    sparsities = [row["sparsity"] for row in record["layers"]]
    if kind == "owl":
        assert max(sparsities) - min(sparsities) == pytest.approx(0.16, abs=0.01)
    assert max(sparsities) - min(sparsities) > 0.01
    if unit == "block":
        for row in record["layers"]:
            assert row["sparsity"] == pytest.approx(shares[row["block"]], abs=2e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"correction": 0.5, "order": "sublayer"},
        {"layer_errors": False},
        {"method": "admm", "refine_steps": 2},
        {"reconstruction_steps": 2, "reconstruction_batch": 1},
        {"outlier_fraction": 0.1},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("kind", ["owl", "error"])
def test_a_sparsity_of_its_own_goes_with_every_option(llama, kind, options):
    """What is measured is what the dense model's layers are like, whatever is done afterwards."""
    model, ids = llama
    found = [
        prune(copy.deepcopy(model), ids, pattern=0.5, allocation=kind, **given).record["layers"]
        for given in (options, {key: options[key] for key in options if key in _MEASURED})
    ]
    sparsities = [[row["sparsity"] for row in rows] for rows in found]
    assert len(set(sparsities[0])) > 1
    assert sparsities[0] == pytest.approx(sparsities[1], abs=1e-3)


def test_the_measure_is_that_of_the_dense_model(llama):
    """By hand, of inputs that hooks see in a whole pass."""
    model, ids = llama
    blocks = find_blocks(model)
    measures = []
    for index, block in enumerate(blocks.modules):
        layers, seen = linear_layers(block, blocks.name_of(index)), {}
        handles = [
            layer.module.register_forward_pre_hook(
                lambda _, args, name=name, seen=seen: seen.update({name: args[0].flatten(0, 1)})
            )
            for name, layer in layers.items()
        ]
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        scores = torch.cat(
            [(layer.weight.abs() * seen[n].norm(dim=0)).flatten() for n, layer in layers.items()]
        )
        measures.append(float((scores > 5 * scores.mean()).float().mean()))
    low, high = min(measures), max(measures)
    above = [0.16 * (m - low) / (high - low) for m in measures]
    pruned = copy.deepcopy(model)
    record = prune(pruned, ids, method="wanda", pattern=0.5, allocation="owl").record
    for row in record["layers"]:
        expected = 0.5 + sum(above) / 3 - above[row["block"]]
        width = row["shape"][1]  # Wanda removes a whole number in every row
        assert row["sparsity"] == pytest.approx(expected, abs=1.01 / width)


@pytest.mark.parametrize("kind", ["owl", "error"])
def test_no_layer_keeps_less_than_half_of_what_all_keep(llama, kind):
    model, ids = llama
    options = {"allocation": kind, "allocation_spread": 0.5, "allocation_unit": "layer"}
    record = prune(model, ids, method="thanos", pattern=0.8, **options).record
    sparsities = [row["sparsity"] for row in record["layers"]]
    assert min(sparsities) < 0.8 < max(sparsities) <= 0.9 + 1e-3
    sizes = [math.prod(row["shape"]) for row in record["layers"]]
    zeros = sum(map(math.prod, zip(sizes, sparsities, strict=True)))
    assert round(zeros) == math.floor(0.8 * sum(sizes))


def test_a_measure_of_nothing_takes_no_part():
    alike = dict.fromkeys("abc", 1)
    assert kept_for_errors({"a": 0.0, "b": 0.0}, alike, 0.1) == {"a": 0.0, "b": 0.0}
    kept = kept_for_errors({"a": 0.0, "b": 1.0, "c": math.e}, alike, 0.1)
    assert kept["c"] - kept["b"] == pytest.approx(0.1)
    assert math.isfinite(kept["a"])
    sizes = dict.fromkeys("abc", 1000)
    found = allocate(sizes, {name: name for name in sizes}, kept, 0.5)
    assert sum(math.floor(each.p * 1000) for each in found.values()) == 1500


@pytest.mark.parametrize("unit", ["block", "layer"])
def test_the_error_is_that_of_a_blocks_outputs(llama, unit):
    """By hand: a block roughly pruned, or one of its layers, between dense ones."""
    model, ids = llama
    blocks, measures = find_blocks(model), {}

    def outputs(block):
        kept = []
        handle = block.register_forward_hook(lambda *call: kept.append(call[-1]))
        with torch.no_grad():
            model(input_ids=ids, use_cache=False)
        handle.remove()
        return kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]

    for index, block in enumerate(blocks.modules):
        layers, pruned = linear_layers(block, blocks.name_of(index)), {}
        dense = outputs(block)
        for name, layer in layers.items():
            statistics = InputStatistics(layer.shape[1])
            handle = layer.module.register_forward_pre_hook(
                lambda _, args, statistics=statistics: statistics.update(args[0])
            )
            outputs(block)
            handle.remove()
            pruned[name] = prune_weight(layer.weight, statistics, "wanda", 0.5, refine_steps=4)
        for names in [[name] for name in layers] if unit == "layer" else [list(layers)]:
            before = {name: layers[name].weight.clone() for name in names}
            for name in names:
                layers[name].write(pruned[name].weight)
            lost = (outputs(block) - dense).square().sum(-1) / dense.square().sum(-1)
            for name in names:
                layers[name].write(before[name])
            measures |= dict.fromkeys(names, float(lost.mean()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    options = {"allocation": "error", "allocation_unit": unit, "allocation_spread": 0.03}
    made = prune(copy.deepcopy(model), ids, method="magnitude", pattern=0.5, **options)
    for row in made.record["layers"]:
        first = made.record["layers"][0]
        lost = [measures[each["layer"]] for each in (first, row)]
        if unit == "layer":  # blocks are of one size
            lost = [
                e / math.prod(each["shape"]) for e, each in zip(lost, (first, row), strict=True)
            ]
        expected = 0.03 * math.log(lost[0] / lost[1])
        rounding = 1.5 * (1 / math.prod(row["shape"]) + 1 / math.prod(first["shape"]))
        assert row["sparsity"] - first["sparsity"] == pytest.approx(expected, abs=rounding)
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "gemma2"])
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_blocks_of_any_kind_are_tried(tiny, family, unit):
    """Weights that lie the other way round, experts of which some see next to nothing."""
    ids = torch.randint(0, 60, (4, 16), generator=torch.Generator().manual_seed(1))
    options = {"allocation": "error", "allocation_unit": unit, "rare_experts": "magnitude"}
    rows = prune(tiny(family), ids, method="thanos", pattern=0.5, **options).record["layers"]
    sizes = [math.prod(row["shape"]) for row in rows]
    zeros = sum(size * row["sparsity"] for size, row in zip(sizes, rows, strict=True))
    assert round(zeros) == sum(sizes) // 2
    assert len({round(row["sparsity"], 3) for row in rows}) > 1
    if family == "mixtral":  # of a block's experts gate and up are one, and so is down
        experts = [row for row in rows if "experts" in row["layer"]]
        shares: dict[tuple[int, bool], set[float]] = {}
        for row in experts:
            part = (row["block"], "down" in row["layer"])
            shares.setdefault(part, set()).add(round(row["sparsity"], 2))
        assert len(shares) == 6
        assert all(len(each) == 1 for each in shares.values())


def test_a_weight_that_is_none_is_named_and_nothing_stays(llama):
    model, ids = llama
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = math.nan
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=r"^model\.layers\.1\.mlp\.down_proj: "):
        prune(model, ids, method="magnitude", pattern=0.5, allocation="error")
    after = model.state_dict()
    assert all(torch.equal(before[n].nan_to_num(7), after[n].nan_to_num(7)) for n in before)


def test_nothing_of_what_is_tried_stays(llama):
    """With all sparsities alike the model is the one that is pruned without."""
    model, ids = llama
    models = [copy.deepcopy(model) for _ in range(2)]
    options = {"method": "magnitude", "pattern": 0.5}
    prune(models[0], ids, **options)
    prune(models[1], ids, **options, allocation="error", allocation_spread=0.0)
    plain, allocated = (each.state_dict() for each in models)
    assert all(torch.equal(plain[name], allocated[name]) for name in plain)
