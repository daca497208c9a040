"""Blocks that return and share more than hidden states, or are one with each other."""

from collections import UserDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from tiny_configs import tiny_config
from torch import nn
from transformers import BertConfig, RobertaConfig
from transformers.modeling_outputs import ModelOutput
from whole_logits import whole_logits

from thanos.errors import UserError
from thanos.models import (
    BlocksInMemory,
    FinishedBlocks,
    StreamedBlocks,
    copy_checkpoint,
    find_blocks,
    load_model,
    prune_model,
)
from thanos.models.block_calls import hidden_of
from thanos.models.replay import record
from thanos.pruning import prune_weight


@dataclass
class Plain:
    states: torch.Tensor
    scores: object = None


@dataclass
class Own(ModelOutput):
    weights: torch.Tensor | None = None
    hidden_states: torch.Tensor | None = None


Named = namedtuple("Named", "scores hidden_states")


def logits_are_the_models(model, windows, batch_size=2):
    with torch.no_grad():
        expected = torch.cat(
            [model(input_ids=b, use_cache=False).logits for b in windows.split(batch_size)]
        )
    return torch.equal(whole_logits(BlocksInMemory(model), windows, batch_size), expected)


@pytest.mark.parametrize("kind", ["bamba", "glm_moe_dsa", "gemma4_text", "zaya", "xlstm", "rwkv"])
def test_replay_is_exact_whatever_blocks_return_or_share(custom, windows, kind):
    assert logits_are_the_models(custom(tiny_config(kind)), windows)


def test_keys_and_values_that_blocks_share_lie_with_later_ones_only_as_long_as_needed(
    custom, windows
):
    model = custom(tiny_config("glm_moe_dsa"))
    blocks = find_blocks(model)
    recording = record(model, blocks, windows, 5)

    with torch.no_grad():
        for index, block in enumerate(blocks.modules):
            recording.advance(index, block, "cpu")
            kept = recording._passed[0].returned
            assert {item.block for item in kept} <= {index}
    assert not kept


class Wrapped(nn.Module):
    """A block that returns something else than its own does."""

    def __init__(self, block, wrap):
        super().__init__()
        self.own = block
        self.wrap = wrap

    def forward(self, hidden_states, *args, **kwargs):
        return self.wrap(self.own(hidden_states, *args, **kwargs))


def model_returning(tiny, wrap, read):
    """A LLaMA whose blocks return `wrap(states)`, of which the model takes `read(returned)`."""
    model = tiny("llama")
    layers = model.model.layers
    for index, block in enumerate(layers):
        layers[index] = Wrapped(block, wrap)
    forward = model.model.forward

    def reading(*args, **kwargs):
        hooks = [block.register_forward_hook(lambda *call: read(call[-1])) for block in layers]
        try:
            return forward(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()

    model.model.forward = reading
    return model


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (lambda h: (h, None), lambda out: out[0]),
        (lambda h: [h, h * 2, 3], lambda out: out[0]),
        (lambda h: Plain(h, h), lambda out: out[0] if isinstance(out, tuple) else out.states),
        (lambda h: Own(weights=h * 2, hidden_states=h), lambda out: out.hidden_states),
        (lambda h: Own(weights=h * 2, hidden_states=h), lambda out: out["hidden_states"]),
        (lambda h: {"hidden_states": h}, lambda out: out["hidden_states"]),
        (lambda h: Named(h * 2, h), lambda out: out.hidden_states),
    ],
    ids=["tuple", "list", "dataclass", "attribute", "key", "dictionary", "namedtuple"],
)
def test_containers_of_every_kind(tiny, windows, wrap, read):
    assert logits_are_the_models(model_returning(tiny, wrap, read), windows)


def test_states_are_found_or_missed_in_one_line():
    states = torch.ones(2)
    assert hidden_of(Own(weights=None, hidden_states=states)) is states
    for nothing in (None, (), {}, ("x",), 3):
        with pytest.raises(UserError, match="are no hidden states"):
            hidden_of(nothing)


def test_a_container_that_blocks_write_to_is_kept_per_batch(tiny, windows):
    """Each block adds its outputs' mean; the next one's inputs are shifted by all of them."""
    model = tiny("llama")

    for block in model.model.layers:
        own = block.forward

        def forward(hidden_states, *args, own=own, notes, **kwargs):
            output = own(hidden_states + sum(notes.values()), *args, **kwargs)
            notes[len(notes)] = output.mean()
            return output

        block.forward = forward
    loop = model.forward
    # As Gemma 4 does: one container for all blocks of a forward.
    model.forward = lambda **kwargs: loop(**kwargs, notes=UserDict())

    blocks = find_blocks(model)
    with torch.no_grad():
        expected = [model(input_ids=b, use_cache=False).logits for b in windows.split(2)]
    forwards = [block.forward for block in blocks.modules]
    recording = record(model, blocks, windows, 2)
    for block, forward in zip(blocks.modules, forwards, strict=True):
        block.forward = forward  # the recorder has taken the place of it
    with torch.no_grad():
        for index, block in enumerate(blocks.modules):
            for run in recording.passes(index, block, "cpu"):
                run()  # leaves no note
            recording.advance(index, block, "cpu")
        got = [model.lm_head(model.model.norm(states)) for states in recording.hidden]
    assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))


def test_changes_in_place_between_blocks_are_seen(tiny, windows):
    model = tiny("llama")
    blocks = find_blocks(model)
    blocks.modules[0].register_forward_hook(lambda module, args, output: output.mul_(2))

    with pytest.raises(UserError, match="changes the hidden states between the blocks"):
        record(model, blocks, windows, 5)


def test_two_streams_of_states_are_refused(custom, windows):
    model = custom(tiny_config("reformer"))
    with pytest.raises(UserError, match=r"^ReformerModelWithLMHead "):
        whole_logits(BlocksInMemory(model), windows, 2)


@pytest.fixture
def tied(custom, tmp_path):
    """A Zamba, two of whose blocks share their attention and MLP, in a folder."""
    custom(tiny_config("zamba")).save_pretrained(tmp_path / "tied")
    return tmp_path / "tied"


def halve(weight, inputs):
    return prune_weight(weight, inputs, "magnitude", "0.5")


def test_blocks_that_share_weights_are_evaluated(tied, windows):
    whole = load_model(tied)
    got = whole_logits(StreamedBlocks(tied), windows, 5)
    with torch.no_grad():
        assert torch.equal(got, whole(windows, use_cache=False).logits)


def test_shared_weights_are_pruned_by_nobody(tied, windows, tmp_path):
    with pytest.raises(UserError, match=r"shared_transf.* is one with .*model\.skip=\[") as caught:
        prune_model(StreamedBlocks(tied), windows, halve, statistics="none", skip=("mamba",))
    advised = str(caught.value).partition("model.skip=[")[2].rstrip("]").split(",")
    assert "mamba" in advised
    assert "shared_transf.self_attn.q_proj" in advised

    finished = FinishedBlocks(tmp_path / "work", {})
    source = StreamedBlocks(tied, finished=finished)
    prune_model(source, windows, halve, statistics="gram", skip=(*advised, "mamba_decoder.mamba"))

    (tmp_path / "pruned").mkdir()
    copy_checkpoint(tied, finished.tensors, tmp_path / "pruned")
    assert torch.isfinite(load_model(tmp_path / "pruned")(windows).logits).all()


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**{**tiny_config("bert").to_dict(), "is_decoder": False}),
        RobertaConfig(**{**tiny_config("roberta").to_dict(), "is_decoder": False}),
    ],
    ids=["bert", "roberta"],
)
def test_an_encoder_is_no_causal_model(custom, windows, config):
    model = custom(config)

    with pytest.raises(UserError, match=r"is not causal.*is_decoder"):
        whole_logits(BlocksInMemory(model), windows, 2)
    with pytest.raises(UserError, match=r"is not causal"):
        prune_model(model, windows, halve, statistics="gram")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bert", "llama", "mixtral", "gemma3_text", "falcon_h1", "bloom"])
def test_decoders_are_causal(custom, windows, kind, dtype):
    model = custom(tiny_config(kind)).to(dtype)
    assert len(whole_logits(BlocksInMemory(model), windows, 2)) == len(windows)
