import pytest
import torch
from transformers import PreTrainedModel

from thanos.errors import UserError
from thanos.models.block_calls import hidden_of
from thanos.models.blocks import find_blocks
from thanos.models.replay import finish, record


@torch.no_grad()
def own_hidden_states(model: PreTrainedModel, blocks, batch) -> list[torch.Tensor]:
    """What the model itself passes from block to block, and what its last block returns."""
    states: list[torch.Tensor] = []

    def first_input(module, args, kwargs):
        states.append((args[0] if args else kwargs["hidden_states"]).clone())

    def output(module, args, result):
        states.append(hidden_of(result).clone())

    handles = [blocks.modules[0].register_forward_pre_hook(first_input, with_kwargs=True)]
    handles += [block.register_forward_hook(output) for block in blocks.modules]
    model(input_ids=batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return states


@torch.no_grad()
def assert_replay_is_exact(model, windows, batch_size):
    blocks = find_blocks(model)

    recording = record(model, blocks, windows, batch_size)

    expected = [own_hidden_states(model, blocks, batch) for batch in windows.split(batch_size)]
    for index in range(len(blocks) + 1):
        for hidden, own in zip(recording.hidden, expected, strict=True):
            assert torch.equal(hidden, own[index])
        if index < len(blocks):
            for run in recording.passes(index, blocks.modules[index], "cpu"):
                run()  # leaves no trace
            recording.advance(index, blocks.modules[index], "cpu")
    for batch, hidden in zip(windows.split(batch_size), recording.hidden, strict=True):
        logits = model(input_ids=batch, use_cache=False).logits
        assert torch.equal(finish(model, blocks, batch, hidden), logits)


def test_replay_equals_the_model_bit_for_bit(any_model, windows):
    assert_replay_is_exact(any_model, windows, batch_size=2)


@pytest.mark.parametrize("family", ["opt", "gemma3", "falcon-7b"])
def test_replay_is_exact_with_masks_as_tensors(tiny, windows, family):
    assert_replay_is_exact(tiny(family, attention="eager"), windows, batch_size=2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_replay_is_exact_in_half_precision(tiny, windows, dtype):
    assert_replay_is_exact(tiny("llama").to(dtype), windows, batch_size=3)


def test_block_arguments_differ_with_the_kind_of_attention(tiny, windows):
    model = tiny("gemma3", attention="eager")  # sliding, sliding, full attention

    sliding, also_sliding, full = record(model, find_blocks(model), windows, 5).calls[0]

    masks = [call.kwargs["attention_mask"] for call in (sliding, also_sliding, full)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    rotations = [call.kwargs["position_embeddings"][0] for call in (sliding, also_sliding, full)]
    assert torch.equal(rotations[0], rotations[1])
    assert not torch.equal(rotations[0], rotations[2])


def test_equal_arguments_are_kept_once_for_all_batches(tiny, windows):
    model = tiny("llama", attention="eager")

    calls = record(model, find_blocks(model), windows[:4], batch_size=2).calls

    for name in ("attention_mask", "position_embeddings"):
        kept = [call.kwargs[name] for batch in calls for call in batch]
        tensors = [t for value in kept for t in (value if isinstance(value, tuple) else (value,))]
        distinct = {id(tensor) for tensor in tensors}
        assert len(distinct) == (1 if name == "attention_mask" else 2)  # cosines and sines


def test_recording_leaves_the_model_as_it_was(any_model, windows):
    before = any_model(input_ids=windows).logits

    record(any_model, find_blocks(any_model), windows, batch_size=5)

    assert torch.equal(any_model(input_ids=windows).logits, before)


def test_recording_touches_no_weight_of_the_blocks(tiny, windows):
    model = tiny("llama")
    blocks = find_blocks(model)
    expected = record(model, blocks, windows, batch_size=5)

    blocks.modules.to("meta")
    recording = record(model, blocks, windows, batch_size=5)

    assert torch.equal(recording.hidden[0], expected.hidden[0])


def test_a_model_that_works_between_its_blocks_is_refused(tiny, windows):
    model = tiny("opt")
    blocks = find_blocks(model)
    # A hook on the model's block: it changes what the next block receives.
    blocks.modules[0].register_forward_hook(lambda module, args, output: output * 2)

    with pytest.raises(UserError, match=r"OPTForCausalLM changes the hidden states between"):
        record(model, blocks, windows, batch_size=5)
