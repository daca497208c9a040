import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MixtralConfig

from thanos.compression.compact import compact_model
from thanos.compression.compact_linear import CompactLinear, compact_linear
from thanos.errors import UserError
from thanos.models import find_blocks


def logits(model, tokens):
    with torch.inference_mode():
        return model(input_ids=tokens).logits


def weights_in(blocks) -> int:
    return sum(parameter.numel() for parameter in blocks.parameters())


def test_two_products_give_what_the_zero_filled_weight_gives():
    weight = torch.tensor([[1.0, 0, 2, 0], [3, 8, 4, 9], [5, 0, 6, 0]])
    bias = torch.tensor([1.0, 2, 3])
    module = compact_linear(
        weight,
        bias,
        kept=torch.tensor([0, 2]),
        outliers=torch.tensor([1]),
        outlier_columns=torch.tensor([1, 3]),
    )
    x = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(module(x), nn.functional.linear(x, weight, bias))
    assert module.weight.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert module.outliers.weight.tolist() == [[8, 9]]


def test_removed_rows_give_zeros_or_no_output():
    weight = torch.tensor([[1.0, 0, 2], [3, 8, 4], [5, 0, 6]])
    kept, outliers, further = torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([1])
    split = {"kept": kept, "outliers": outliers, "outlier_columns": further}
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    full = x @ weight.T

    for rows in (torch.tensor([1, 2]), torch.tensor([0, 2])):
        placed = compact_linear(weight, None, rows=rows, **split)(x)
        narrow = compact_linear(weight, None, rows=rows, narrow=True, **split)(x)
        torch.testing.assert_close(placed[:, rows], full[:, rows])
        assert int((placed != 0).sum()) == 4 * len(rows)
        torch.testing.assert_close(narrow, full[:, rows])


def test_a_narrow_input_needs_no_gathering():
    weight = torch.tensor([[1.0, 0, 2], [3, 0, 4]])
    inputs, none = torch.tensor([0, 2]), torch.tensor([], dtype=torch.int64)
    module = compact_linear(
        weight, None, kept=inputs, outliers=none, outlier_columns=none, inputs=inputs
    )

    assert module.kept is None
    assert module(torch.tensor([1.0, 10])).tolist() == [21, 43]


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("family", ["llama", "opt"])
def test_same_logits_with_fewer_weights(families, prune, tokens, family, alpha):
    model = prune(families[family](), "structured:0.3", alpha)
    expected = logits(model, tokens)
    blocks = find_blocks(model).modules
    before = weights_in(blocks)

    names = compact_model(model)

    assert len(names) == 2 * (7 if family == "llama" else 6)
    assert (logits(model, tokens) - expected).abs().max() < 1e-4
    assert weights_in(blocks) < (0.65 if alpha == 0 else 0.8) * before
    generated = model.generate(tokens[:1], max_new_tokens=4, do_sample=False)
    assert generated.shape == (1, 20)


def test_families_that_are_wired_differently(other_model, prune, tokens):
    model = prune(other_model, "structured:0.3")
    expected = logits(model, tokens)
    blocks = find_blocks(model).modules
    before = weights_in(blocks)

    compact_model(model)

    assert (logits(model, tokens) - expected).abs().max() < 1e-4
    assert weights_in(blocks) < 0.75 * before


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_rows_that_nothing_reads_are_gone(families, prune, family):
    model = prune(families[family](), "structured:0.3")
    last = {"llama": "mlp.down_proj", "opt": "fc2"}[family]
    feeding = {"llama": ["mlp.gate_proj", "mlp.up_proj"], "opt": ["fc1"]}[family]
    output = {"llama": "self_attn.o_proj", "opt": "self_attn.out_proj"}[family]

    blocks = find_blocks(model).modules
    compact_model(model)

    for block in blocks:
        reading = block.get_submodule(last)
        assert reading.kept is None
        for name in feeding:
            made = block.get_submodule(name)
            assert made.placed is None
            assert len(made.weight) == reading.weight.shape[1] == reading.in_features
        values = block.get_submodule("self_attn.v_proj")
        assert values.out_features == 32  # attention cuts its input into heads of equal width
        assert values.placed.tolist() == block.get_submodule(output).kept.tolist()


def test_shared_heads_keep_rows_that_any_head_reads(families, prune, tokens):
    model = prune(families["llama"](kv_heads=2), "structured:0.6")
    expected = logits(model, tokens)

    compact_model(model)

    assert (logits(model, tokens) - expected).abs().max() < 1e-4
    attention = model.model.layers[0].self_attn
    kept = attention.o_proj.kept
    of_head, place = kept // 8, kept % 8
    read = {(int(head) // 2) * 8 + int(i) for head, i in zip(of_head, place, strict=True)}
    assert attention.v_proj.placed.tolist() == sorted(read)


def test_outlier_rows_keep_what_they_read(families, prune):
    model = prune(families["llama"](), "structured:0.3", 0.1)

    compact_model(model)

    down = model.model.layers[0].mlp.down_proj
    assert len(down.outliers.rows) == 4  # ⌈0.1 · 32⌉
    assert down.in_features == 88  # every channel is still read by an outlier row


@pytest.mark.parametrize("pattern", ["0.5", "2:4"])
def test_other_patterns_stay_as_they_are(families, prune, pattern):
    model = prune(families["llama"](hidden=128, layers=1), pattern)

    assert compact_model(model) == []
    assert not any(isinstance(module, CompactLinear) for module in model.modules())


def test_skipped_layers_stay_dense(families, prune, tokens):
    model = prune(families["llama"](), "structured:0.3")
    expected = logits(model, tokens)

    names = compact_model(model, skip=["mlp.down_proj"])

    assert not any(name.endswith("down_proj") for name in names)
    assert isinstance(model.model.layers[0].mlp.down_proj, nn.Linear)
    assert (logits(model, tokens) - expected).abs().max() < 1e-4


def test_half_precision_is_kept(families, prune):
    model = prune(families["llama"](), "structured:0.3").half()

    assert compact_model(model)

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_a_mixture_of_experts_is_refused_in_one_line():
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    config = MixtralConfig(
        vocab_size=8, **shape, num_attention_heads=2, num_key_value_heads=2, num_local_experts=2
    )

    with pytest.raises(UserError, match="MixtralForCausalLM is a mixture of experts, which has no"):
        compact_model(AutoModelForCausalLM.from_config(config))
