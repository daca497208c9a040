"""Blocks trained after they were pruned: what moves, what stays, who decides when it is enough."""

import copy
from dataclasses import replace

import pytest
import torch

from thanos.errors import UserError
from thanos.models import find_blocks, linear_layers, prune_model
from thanos.models.experts import parameter_of
from thanos.models.reconstruction import Reconstruction
from thanos.pruning import prune_weight

HOW = Reconstruction(steps=12, learning_rate=3e-3)


def by_magnitude(weight, statistics):
    return prune_weight(weight, None, "magnitude", "2:4")


def pruned(model, windows, how=None, prune=by_magnitude, **options):
    """A pruned copy of the model, and its records by layer."""
    model = copy.deepcopy(model)
    options = {"statistics": "none", "batch_size": 2, "reconstruction": how, **options}
    records = prune_model(model, windows, prune, **options)
    return model, {record.name: record for record in records}


@torch.no_grad()
def outputs(model, windows):
    """What every block returns in a whole pass of the model, in float64."""
    found = []

    def keep(module, args, output):
        found.append((output if torch.is_tensor(output) else output[0]).double())

    handles = [block.register_forward_hook(keep) for block in find_blocks(model).modules]
    model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def test_blocks_come_closer_to_the_dense_ones_and_zeros_stay(any_model, windows):
    after, records = pruned(any_model, windows, HOW)
    layers = {}
    blocks = find_blocks(after)
    for index, block in enumerate(blocks.modules):
        layers |= linear_layers(block, blocks.name_of(index))
    held_out = windows[4:]  # the last of three batches
    for record in records.values():
        zeros = layers[record.name].weight == 0
        assert (zeros.unflatten(1, (-1, 4)).sum(2) >= 2).all()
        assert record.sparsity == zeros.float().mean()
    pairs = zip(outputs(after, held_out), outputs(any_model, held_out), strict=True)
    errors = [float((ours - dense).square().sum() / dense.square().sum()) for ours, dense in pairs]
    for record in records.values():
        assert record.details["block_error"] == pytest.approx(errors[record.block], rel=1e-3)
        assert record.details["block_error"] <= record.details["block_error_before"]
    assert max(r.details["reconstruction_steps"] for r in records.values()) > 0


def test_products_in_half_precision_move_weights_that_stay_in_single(tiny, windows):
    """Within a few percent of the way that products in single precision go; judged as ever."""
    model = tiny("llama")
    single, expected = pruned(model, windows, HOW)
    half, records = pruned(model, windows, replace(HOW, product_dtype=torch.bfloat16))

    weights = half.model.layers[0].mlp.up_proj.weight
    assert not torch.equal(weights, weights.bfloat16().float())
    assert not torch.equal(weights, single.model.layers[0].mlp.up_proj.weight)
    for name, record in records.items():
        before, error = record.details["block_error_before"], record.details["block_error"]
        gained = (
            expected[name].details["block_error_before"] - expected[name].details["block_error"]
        )
        assert before - error == pytest.approx(gained, rel=0.1)


def test_a_device_that_cannot_is_named_before_a_layer_is_pruned(tiny, windows, monkeypatch):
    def never(weight, statistics):
        raise AssertionError

    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: kind != "cpu")
    with pytest.raises(UserError, match=r"device cpu cannot .* method.reconstruction_precision"):
        pruned(tiny("llama"), windows, replace(HOW, product_dtype=torch.bfloat16), never)


def test_nothing_else_moves(any_model, windows):
    """Biases, norms, routers, embeddings; and of the layers no weight that was removed."""
    before, records = pruned(any_model, windows)
    after, _ = pruned(any_model, windows, HOW)
    layers = {parameter_of(n) if ".experts." in n else f"{n}.weight" for n in records}
    moved = set()
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        if not torch.equal(old, new):
            moved.add(name)
            assert torch.equal(old == 0, new == 0)
    assert moved
    assert moved <= layers


def test_the_steps_are_adams_on_what_is_left(tiny, windows):
    """One block against a loop of its own: gradients of removed weights are dropped, no more."""
    model = tiny("llama")
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    how = Reconstruction(steps=7, learning_rate=1e-3, seed=3)
    after, records = pruned(model, windows, how)
    expected, _ = pruned(model, windows)

    block = expected.model.layers[0]
    weights = [layer.module.weight for layer in linear_layers(block, "model.layers.0").values()]
    kept = [weight != 0 for weight in weights]
    generator = torch.Generator().manual_seed(3)
    order = [*torch.randperm(2, generator=generator), *torch.randperm(2, generator=generator)]
    order += [*torch.randperm(2, generator=generator), *torch.randperm(2, generator=generator)]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    best, state = float("inf"), None
    dense = outputs(model, windows)[0].float()
    targets = dense.split(2)

    def run(batch):
        found = []
        handle = block.register_forward_hook(lambda module, args, output: found.append(output))
        expected.model(input_ids=windows.split(2)[batch], use_cache=False)
        handle.remove()
        return found[0] if torch.is_tensor(found[0]) else found[0][0]

    def judged():
        with torch.no_grad():
            return float((run(2) - targets[2]).square().sum() / targets[2].square().sum())

    start = judged()
    for step in range(7):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / 7)
        batch = int(order[step])
        optimizer.zero_grad()
        size = start * targets[batch].square().sum()
        ((run(batch) - targets[batch]).square().sum() / size).backward()
        for weight, keep in zip(weights, kept, strict=True):
            weight.grad.mul_(keep)
        optimizer.step()
        if judged() < best:
            best, state = judged(), [weight.detach().clone() for weight in weights]

    record = next(iter(records.values()))
    assert record.details["block_error_before"] == pytest.approx(start, rel=1e-5)
    assert record.details["block_error"] == pytest.approx(best, rel=1e-4)
    layers = linear_layers(after.model.layers[0], "model.layers.0").values()
    for layer, weight in zip(layers, state, strict=True):
        # Adam divides by the gradient's size: where that is next to nothing, so is its direction.
        assert torch.allclose(layer.weight, weight, atol=2e-5)


def test_what_fits_the_windows_it_was_trained_on_alone_is_thrown_away(tiny, windows):
    """Steps so large that nothing gets better leave the block as it was pruned, to the bit."""
    model = tiny("llama")
    before, _ = pruned(model, windows)
    after, records = pruned(model, windows, Reconstruction(steps=5, learning_rate=1e3))
    assert all(record.details["reconstruction_steps"] == 0 for record in records.values())
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert torch.equal(old, new)


def test_weights_are_those_that_are_stored(tiny, windows):
    """They are rounded before they are judged, so that later blocks see what is written."""
    model = tiny("llama").bfloat16().float()
    how = Reconstruction(steps=6, learning_rate=1e-2, storage_dtype=torch.bfloat16)
    after, records = pruned(model, windows, how)
    for name in records:
        weight = after.get_parameter(f"{name}.weight")
        assert torch.equal(weight, weight.bfloat16().float())


def test_a_layer_that_is_left_dense_stays_as_it_is(any_mixture, windows):
    """An expert's matrix too, which shares its parameter with others that move."""
    left = "*.experts.0.gate_proj"
    after, records = pruned(any_mixture, windows, HOW, skip=[left])
    blocks, old_blocks = find_blocks(after), find_blocks(any_mixture)
    for index, block in enumerate(blocks.modules):
        name = blocks.name_of(index)
        old = linear_layers(old_blocks.modules[index], name)
        for layer in linear_layers(block, name).values():
            if layer.name not in records:
                assert layer.name.endswith("experts.0.gate_proj")
                assert torch.equal(layer.weight, old[layer.name].weight)


def test_a_block_that_is_left_dense_has_nothing_to_train(tiny, windows):
    model = tiny("llama")
    after, records = pruned(model, windows, HOW, skip=["model.layers.1.*"])
    assert {record.block for record in records.values()} == {0, 2}
    for old, new in zip(
        model.model.layers[1].parameters(), after.model.layers[1].parameters(), strict=True
    ):
        assert torch.equal(old, new)


def test_one_batch_cannot_judge_itself(tiny, windows):
    with pytest.raises(UserError, match=r"raise calibration\.windows, or lower"):
        pruned(tiny("llama"), windows, HOW, batch_size=5)
