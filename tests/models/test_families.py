"""Each family, pruned by each method to each pattern, is what was asked for and opens again."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from thanos.models import find_blocks, linear_layers, prune_model
from thanos.pruning import prune_weight

METHODS = ("magnitude", "wanda", "sparsegpt", "thanos")


def assert_pattern(name, W, pattern):
    zero = W == 0
    rows, columns = W.shape
    match pattern:
        case "0.5":
            assert int(zero.sum()) == W.numel() // 2, name
        case "structured:0.25":
            assert int(zero.all(0).sum()) == columns // 4, name
            assert int(zero.sum()) == rows * (columns // 4), name
        case _:
            n, m = map(int, pattern.split(":"))
            assert torch.all(zero.unflatten(1, (-1, m)).sum(-1) == m - n), name


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_has_its_pattern_and_the_checkpoint_opens(any_model, windows, tmp_path, method):
    dense = {name: value.clone() for name, value in any_model.state_dict().items()}
    blocks = find_blocks(any_model)
    for pattern in ("0.5", "2:4", "structured:0.25"):
        any_model.load_state_dict(dense)

        def prune(weight, inputs, pattern=pattern):
            return prune_weight(weight, inputs, method=method, pattern=pattern)

        def data_free(weight, inputs, pattern=pattern):
            return prune_weight(weight, None, method="magnitude", pattern=pattern)

        records = prune_model(any_model, windows, prune, statistics="gram", data_free=data_free)

        for index, block in enumerate(blocks.modules):
            for name, layer in linear_layers(block, blocks.name_of(index)).items():
                assert_pattern(name, layer.weight, pattern)
        assert len(records) == sum(
            len(linear_layers(block, blocks.name_of(index)))
            for index, block in enumerate(blocks.modules)
        )
        any_model.save_pretrained(tmp_path)
        opened = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
        in_memory = any_model(input_ids=windows).logits
        assert torch.equal(opened(input_ids=windows).logits, in_memory)
