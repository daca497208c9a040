import pytest
import torch
from torch import nn

from thanos.compression.tracing import find_links, is_unused
from thanos.models import LinearLayer


class GatedBlock(nn.Module):
    """A mixing layer, then a gated pair, then a shuffle, then a layer that reads the result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(6, 6)
        self.gate = nn.Linear(6, 5)
        self.up = nn.Linear(6, 5)
        self.down = nn.Linear(10, 6)
        self.order = torch.tensor([4, 0, 2, 1, 3])

    def forward(self, x):
        x = torch.softmax(self.mix(x), -1)
        inner = torch.relu(self.gate(x)) * self.up(x)
        return x + self.down(torch.cat([inner, inner[..., self.order]], -1))


@pytest.fixture
def traced():
    block = GatedBlock()
    layers = {name: LinearLayer(name, module) for name, module in block.named_children()}
    x = torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(1))
    return block, layers, lambda: block(x)


def test_each_channel_is_traced_to_its_row(traced):
    block, layers, run = traced

    links = {(link.producer, link.consumer): link for link in find_links(run, layers)}

    # softmax mixes all rows of `mix`, so no channel is made from a single one of them
    assert set(links) == {("gate", "down"), ("up", "down")}
    for link in links.values():
        assert link.sources.tolist() == [0, 1, 2, 3, 4, *block.order.tolist()]
        assert not link.pointwise  # each row feeds two channels
        assert link.rows_read_by(torch.tensor([0, 5])).tolist() == [0, 4]


def test_a_row_is_unused_when_no_weight_reads_it(traced):
    block, layers, run = traced
    with torch.no_grad():
        block.down.weight[:, [2, 7]] = 0

    assert is_unused(run, layers["up"], torch.tensor([2]))  # channels 2 and 7
    assert not is_unused(run, layers["up"], torch.tensor([2, 3]))


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_links_values_to_the_output_projection(families, tokens, kv_heads):
    model = families["llama"](layers=1, kv_heads=kv_heads)
    block = model.model.layers[0]
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    names += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    layers = {name: LinearLayer(name, block.get_submodule(name)) for name in names}

    links = {
        (link.producer.rpartition(".")[2], link.consumer.rpartition(".")[2]): link
        for link in find_links(lambda: model(input_ids=tokens[:1]).logits, layers)
    }

    assert set(links) == {
        ("v_proj", "o_proj"),
        ("gate_proj", "down_proj"),
        ("up_proj", "down_proj"),
    }
    heads = torch.arange(8 * kv_heads).view(kv_heads, 1, 8).expand(kv_heads, 4 // kv_heads, 8)
    assert links["v_proj", "o_proj"].sources.tolist() == heads.flatten().tolist()
    assert not links["v_proj", "o_proj"].pointwise  # attention carries values to later tokens
    assert links["gate_proj", "down_proj"].pointwise
    assert links["up_proj", "down_proj"].sources.tolist() == list(range(88))
