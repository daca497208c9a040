"""Weight-only quantisation: the grid, the zeros, and the run that is evaluated on it."""

import pytest
import torch

from thanos.config import RunBuilder, resolve
from thanos.errors import UserError
from thanos.evaluation.quantization import QuantizedBlocks, group_size, quantize_model, quantized
from thanos.models import BlocksInMemory, load_model, logits_by_blocks
from thanos.paths import model_folder


def test_a_row_that_can_be_checked_on_paper():
    # int4: the largest of the group is 7 steps of 0.5; ties of halves go to the even step.
    weight = torch.tensor([[3.5, -0.6, 0.0, 1.3]])
    assert quantized(weight, "int4").tolist() == [[3.5, -0.5, 0.0, 1.5]]
    # int8: 127 steps of 0.1 over the whole row.
    weight = torch.tensor([[12.7, 0.04, -0.26]])
    torch.testing.assert_close(quantized(weight, "int8"), torch.tensor([[12.7, 0.0, -0.3]]))


@pytest.mark.parametrize(("kind", "levels"), [("int8", 255), ("int4", 15)])
def test_pruned_weights_stay_zero_and_levels_are_few(kind, levels):
    torch.manual_seed(0)
    weight = torch.randn(32, 128)
    weight[torch.rand_like(weight) < 0.5] = 0
    weight[3] = 0  # a row that is pruned whole
    nearest = quantized(weight, kind)
    assert (nearest[weight == 0] == 0).all()
    assert max(len(row.unique()) for row in nearest) <= levels
    step = weight.abs().amax(dim=1, keepdim=True) / (levels // 2)
    assert ((nearest - weight).abs() <= step / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize(("width", "group"), [(256, 128), (688, 16), (4096, 128), (96, 32), (3, 1)])
def test_groups_divide_the_width(width, group):
    assert group_size(width) == group


def test_a_streamed_and_a_loaded_model_are_quantised_alike():
    path = model_folder(resolve([]).model.path)
    windows = torch.arange(2 * 32).reshape(2, 32)
    dense = load_model(path, dtype=torch.float32)
    streamed = QuantizedBlocks(BlocksInMemory(load_model(path, dtype=torch.float32)), "int4")
    slices = logits_by_blocks(streamed, windows, 2, "cpu")
    logits = torch.stack([torch.cat(window) for window in slices])
    with torch.no_grad():
        before = dense(windows).logits
        quantize_model(dense, "int4")
        after = dense(windows).logits
    assert torch.equal(logits, after)
    # It is another model than the dense one, and not a broken one.
    difference = ((after - before).norm() / before.norm()).item()
    assert 0.005 < difference < 0.5
    head = dense.get_output_embeddings().weight
    assert torch.equal(head, load_model(path, dtype=torch.float32).get_output_embeddings().weight)


def test_quantisation_is_part_of_the_evaluation_but_not_of_what_is_evaluated():
    configs = [resolve([f"evaluation.quantization={kind}"]) for kind in ("none", "int4")]
    plain, quantized = (RunBuilder().run(config) for config in configs)
    assert plain.evaluation.id != quantized.evaluation.id
    assert plain.name != quantized.name
    assert plain.pruning == quantized.pruning
    assert plain.evaluation.windows == quantized.evaluation.windows
    parts = zip(plain.evaluation.parts(), quantized.evaluation.parts(), strict=True)
    assert [a.id == b.id for a, b in parts] == [False, False, True]  # the size is as stored
    with pytest.raises(UserError, match=r"evaluation\.quantization is 'int3'; expected none, int8"):
        resolve(["evaluation.quantization=int3"])
