import pytest
import torch
from torch import nn

from thanos.errors import UserError
from thanos.models.activations import gather_statistics
from thanos.models.blocks import find_blocks, linear_layers
from thanos.models.linear import LinearLayer
from thanos.models.replay import record


def gather(model, windows, *, block=0, gram=True, dtype=torch.float32):
    """Statistics of one block's layers, on the dense model's hidden states."""
    blocks = find_blocks(model)
    recording = record(model, blocks, windows, batch_size=2)
    layers = linear_layers(blocks.modules[block], blocks.name_of(block))
    with torch.no_grad():
        for index in range(block):
            recording.advance(index, blocks.modules[index], "cpu")
        passes = recording.passes(block, blocks.modules[block], "cpu")
        return gather_statistics(layers, passes, gram=gram, dtype=dtype, device="cpu")


def groups(statistics) -> set[str]:
    """Names of layers that share one object, joined."""
    names: dict[int, list[str]] = {}
    for name, owned in statistics.items():
        names.setdefault(id(owned), []).append(name.rpartition(".")[2])
    return {" ".join(sorted(group)) for group in names.values()}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"k_proj q_proj v_proj", "o_proj", "gate_proj up_proj", "down_proj"}),
        ("opt", {"k_proj q_proj v_proj", "out_proj", "fc1", "fc2"}),
        ("phi", {"fc1 k_proj q_proj v_proj", "dense", "fc2"}),  # attention beside the MLP
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
        ("falcon-7b", {"dense_h_to_4h query_key_value", "dense", "dense_4h_to_h"}),
        ("gpt-neox", {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    ],
)
def test_layers_with_the_same_input_share_statistics(tiny, windows, family, expected):
    assert groups(gather(tiny(family), windows)) == expected


def test_gram_matrix_is_that_of_the_layers_inputs(any_dense_model, windows):
    statistics = gather(any_dense_model, windows, block=1, dtype=torch.float64)

    inputs: dict[str, torch.Tensor] = {}

    def keep(name):
        return lambda module, args: inputs.update({name: args[0].detach().flatten(0, -2)})

    handles = [
        any_dense_model.get_submodule(name).register_forward_pre_hook(keep(name))
        for name in statistics
    ]
    any_dense_model(input_ids=windows, use_cache=False)
    for handle in handles:
        handle.remove()
    assert inputs.keys() == statistics.keys()
    for name, x in inputs.items():
        assert x.shape[0] == statistics[name].tokens == windows.numel()
        G = x.double().T @ x.double()
        assert torch.allclose(statistics[name].gram, G, rtol=1e-4, atol=1e-4 * G.max())


def test_diagonal_statistics_hold_no_gram_matrix(tiny, windows):
    full = gather(tiny("llama"), windows)
    diagonal = gather(tiny("llama"), windows, gram=False)

    for name, owned in diagonal.items():
        assert not owned.has_gram
        assert torch.allclose(owned.squared_norms, full[name].squared_norms)


def test_inputs_in_half_precision_are_summed_in_single(tiny, windows):
    statistics = gather(tiny("llama").to(torch.bfloat16), windows)

    assert {owned.gram.dtype for owned in statistics.values()} == {torch.float32}


def two_layers() -> dict[str, LinearLayer]:
    return {name: LinearLayer(name, nn.Linear(2, 2, bias=False)) for name in ("a", "b")}


def run(layers, passes):
    return gather_statistics(layers, passes, gram=True, dtype=torch.float32, device="cpu")


def test_equal_inputs_in_different_tensors_are_not_shared():
    layers = two_layers()
    x = torch.ones(1, 2)

    statistics = run(layers, [lambda: [layers["a"].module(x), layers["b"].module(x.clone())]])

    assert statistics["a"] is not statistics["b"]


def test_a_tensor_changed_in_place_is_another_input():
    layers = two_layers()

    def forward():
        x = torch.ones(1, 2)
        layers["a"].module(x)
        x += 1
        layers["b"].module(x)

    with torch.no_grad():
        statistics = run(layers, [forward])

    assert torch.equal(statistics["a"].gram, torch.full((2, 2), 1.0))
    assert torch.equal(statistics["b"].gram, torch.full((2, 2), 4.0))


def test_a_layer_that_never_runs_is_an_error():
    layers = two_layers()

    with pytest.raises(UserError, match="b receives no input"):
        run(layers, [lambda: layers["a"].module(torch.ones(1, 2))])


def test_a_layer_that_runs_twice_is_an_error():
    layers = two_layers()

    with pytest.raises(UserError, match="a runs more than once"):
        run(layers, [lambda: layers["a"].module(layers["a"].module(torch.ones(1, 2)))])


def test_non_finite_inputs_are_an_error_in_any_batch():
    layers = two_layers()

    def forward(x):
        return lambda: [layers["a"].module(x), layers["b"].module(torch.ones(1, 2))]

    with pytest.raises(UserError, match="inputs of a hold NaN or infinite"):
        run(layers, [forward(torch.ones(1, 2)), forward(torch.tensor([[1.0, torch.nan]]))])
