"""Blocks read from safetensors one at a time give what the whole model gives."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from whole_logits import whole_logits

from thanos.errors import UserError
from thanos.evaluation.perplexity import perplexity, perplexity_of_logits
from thanos.models import (
    FinishedBlocks,
    StreamedBlocks,
    copy_checkpoint,
    load_model,
    logits_by_blocks,
    prune_model,
)
from thanos.models.kept_states import KeptStates, MappedStates, hidden_states
from thanos.models.stored_weights import read_tensor
from thanos.pruning import prune_weight


def thanos_2_4(weight, inputs):
    return prune_weight(weight, inputs, method="thanos", pattern="2:4")


def magnitude_2_4(weight, inputs):
    return prune_weight(weight, inputs, method="magnitude", pattern="2:4")


def stream(folder, windows, work, **options):
    """Prune block by block what lies in `folder`; return the kept blocks and the records."""
    finished = FinishedBlocks(work, {"run": 1})
    records = prune_model(
        StreamedBlocks(folder, finished=finished),
        windows,
        thanos_2_4,
        statistics="gram",
        batch_size=2,
        done=finished.records,
        data_free=magnitude_2_4,
        **options,
    )
    return finished, records


def untimed(records):
    return [{**vars(record), "seconds": None} for record in records]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "dense").mkdir()
    return tmp_path / "dense"


def test_streamed_pruning_is_that_in_memory(any_model, windows, folder, tmp_path):
    any_model.save_pretrained(folder)

    finished, records = stream(folder, windows, tmp_path / "work")
    (tmp_path / "pruned").mkdir()
    copy_checkpoint(folder, finished.tensors, tmp_path / "pruned")

    expected = prune_model(
        any_model,
        windows,
        thanos_2_4,
        statistics="gram",
        batch_size=2,
        data_free=magnitude_2_4,
    )
    assert untimed(records) == untimed(expected)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned").eval()
    assert opened.state_dict().keys() == any_model.state_dict().keys()
    for name, value in any_model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name
    assert torch.equal(opened(input_ids=windows).logits, any_model(input_ids=windows).logits)


def test_streamed_logits_are_the_models_own(any_model, windows, folder):
    any_model.save_pretrained(folder)

    found = whole_logits(StreamedBlocks(folder), windows, 2)

    with torch.no_grad():
        expected = [any_model(input_ids=batch).logits for batch in windows.split(2)]
    assert torch.equal(found, torch.cat(expected))


def test_large_logits_come_in_slices(any_model, windows, folder, monkeypatch):
    """Of a few positions each, and the same to rounding: the head sees fewer rows at a time."""
    any_model.save_pretrained(folder)
    monkeypatch.setattr("thanos.models.forward.LOGITS_AT_ONCE", 0)
    monkeypatch.setattr("thanos.models.forward.POSITIONS_PER_SLICE", 5)

    logits = [list(s) for s in logits_by_blocks(StreamedBlocks(folder), windows, 2, "cpu")]

    with torch.no_grad():
        expected = any_model(input_ids=windows).logits
    assert {len(piece) for slices in logits for piece in slices[:-1]} == {5}
    torch.testing.assert_close(torch.stack([torch.cat(slices) for slices in logits]), expected)


def test_tokens_of_another_vocabulary_are_refused(tiny, folder):
    tiny("llama").save_pretrained(folder)

    with pytest.raises(UserError, match="token 64 is outside the model's vocabulary of 64"):
        list(logits_by_blocks(StreamedBlocks(folder), torch.full((1, 4), 64), 1, "cpu"))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_of_a_single_block(custom, tiny, windows, folder, family):
    config = tiny(family).config
    config.num_hidden_layers = 1
    model = custom(config)
    model.save_pretrained(folder)

    (logits,) = logits_by_blocks(StreamedBlocks(folder), windows[:1], 1, "cpu")

    assert torch.equal(torch.cat(logits), model(input_ids=windows[:1]).logits[0])


def test_buffers_are_those_of_an_opened_model(any_model, folder):
    any_model.to(torch.bfloat16).save_pretrained(folder)

    streamed = dict(StreamedBlocks(folder).model.named_buffers())

    expected = dict(load_model(folder).named_buffers())
    assert streamed.keys() == expected.keys()
    for name, buffer in expected.items():
        assert streamed[name].dtype == buffer.dtype
        assert torch.equal(streamed[name], buffer), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shards_and_dtype_are_kept(tiny, windows, folder, tmp_path, dtype):
    tiny("llama-tied-biased").to(dtype).save_pretrained(folder, max_shard_size="20KB")
    model = load_model(folder)
    shards = {file.name for file in folder.iterdir()}
    assert len(shards) > 4

    finished, _ = stream(folder, windows, tmp_path / "work")
    (tmp_path / "pruned").mkdir()
    copy_checkpoint(folder, finished.tensors, tmp_path / "pruned")

    assert {file.name for file in (tmp_path / "pruned").iterdir()} == shards
    prune_model(model, windows, thanos_2_4, statistics="gram", batch_size=2)
    opened = load_model(tmp_path / "pruned")
    for name, value in model.state_dict().items():
        assert opened.state_dict()[name].dtype == dtype
        assert torch.equal(opened.state_dict()[name], value), name
    assert opened.lm_head.weight is opened.model.embed_tokens.weight


@pytest.mark.parametrize(("family", "prefix"), [("gpt2", "transformer."), ("opt", "model.")])
def test_names_without_the_models_prefix(tiny, windows, folder, tmp_path, family, prefix):
    model = tiny(family)
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name.removeprefix(prefix): value for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})

    finished, _ = stream(folder, windows, tmp_path / "work")
    (tmp_path / "pruned").mkdir()
    copy_checkpoint(folder, finished.tensors, tmp_path / "pruned")

    prune_model(model, windows, thanos_2_4, statistics="gram", batch_size=2)
    logits = load_model(tmp_path / "pruned")(input_ids=windows).logits
    assert torch.equal(logits, model(input_ids=windows).logits)


def test_one_block_is_in_memory_at_a_time(tiny, windows, folder):
    tiny("llama").save_pretrained(folder)
    source = StreamedBlocks(folder)

    def loaded():
        names = [n for n, p in source._model.named_parameters() if p.device.type != "meta"]
        return {".".join(name.split(".")[:3]) for name in names}

    assert loaded() == set()
    assert source.model is source._model
    assert loaded() == {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    block = source.take(1, "cpu")
    assert loaded() == {"model.layers.1"}
    source.give_back(1, block, ())
    assert loaded() == set()


def test_config_loses_its_sparsity_config_and_nothing_else(tiny, folder, tmp_path):
    tiny("llama").save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sparsity_config": {}, "own": 1}))

    copy_checkpoint(folder, {}, tmp_path)

    theta = config["rope_parameters"]["rope_theta"]  # in the words of older readers, too
    expected = {**config, "own": 1, "rope_theta": theta}
    assert json.loads((tmp_path / "config.json").read_text()) == expected
    assert (tmp_path / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("budget", [0, 10**9])
def test_hidden_states_in_mapped_files_change_nothing(tiny, windows, folder, tmp_path, budget):
    tiny("gemma2").save_pretrained(folder)
    hidden = hidden_states(1000, budget, tmp_path, torch.device("cpu"))
    assert type(hidden) is (KeptStates if budget else MappedStates)

    finished, _ = stream(folder, windows, tmp_path / "a", hidden=hidden)

    expected, _ = stream(folder, windows, tmp_path / "b")
    assert finished.tensors.keys() == expected.tensors.keys()
    for block in range(3):
        name = f"block-{block:04d}.safetensors"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not list(tmp_path.glob("hidden*"))


def change(folder, edit):
    file = folder / "model.safetensors"
    weights = load_file(file)
    edit(weights)
    save_file(weights, file, metadata={"format": "pt"})


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(UP), f"lacks weights of its model: {UP}"),
        (lambda w: w.update({UP: torch.zeros(3, 5)}), rf"{UP} .*\(3, 5\), but .* \(48, 32\)"),
    ],
)
def test_weights_that_do_not_fit_are_named_before_any_is_read(tiny, folder, edit, message):
    tiny("llama").save_pretrained(folder)
    change(folder, edit)

    with pytest.raises(UserError, match=message):
        StreamedBlocks(folder)


def test_weights_that_are_not_used_are_logged(tiny, folder, caplog):
    tiny("llama").save_pretrained(folder)
    change(folder, lambda w: w.update(extra=torch.zeros(1)))

    with caplog.at_level(logging.WARNING, logger="thanos"):
        StreamedBlocks(folder)

    assert "weights its model does not use: extra" in caplog.text


def test_a_non_finite_weight_is_named(tiny, folder):
    tiny("llama").save_pretrained(folder)
    change(folder, lambda w: w[UP].__setitem__((0, 0), torch.nan))

    with pytest.raises(UserError, match=f"weight {UP} in .* holds NaN or infinite"):
        StreamedBlocks(folder).take(1, "cpu")


def test_a_layer_stored_in_a_narrower_format_than_the_others_is_refused(
    tiny, windows, folder, tmp_path
):
    tiny("llama").save_pretrained(folder)
    change(folder, lambda w: w.update({UP: w[UP].half()}))

    with pytest.raises(UserError, match=f"weight {UP} in .* is stored as F16, most others"):
        stream(folder, windows, tmp_path / "work")


def test_norms_in_another_format_are_kept(tiny, windows, folder, tmp_path):
    norm = "model.layers.1.input_layernorm.weight"
    tiny("llama").bfloat16().save_pretrained(folder)
    change(folder, lambda w: w.update({norm: w[norm].float() + 1e-6}))
    dense = load_file(folder / "model.safetensors")[norm]

    finished, _ = stream(folder, windows, tmp_path / "work")
    copy_checkpoint(folder, finished.tensors, tmp_path)

    assert torch.equal(load_file(tmp_path / "model.safetensors")[norm], dense)


def test_quantised_checkpoints_are_refused(tiny, folder):
    tiny("llama").save_pretrained(folder)
    change(folder, lambda w: w.update({UP: w[UP].to(torch.float8_e4m3fn)}))

    with pytest.raises(UserError, match="quantised"):
        StreamedBlocks(folder).take(1, "cpu")


def test_streamed_perplexity_is_that_of_the_whole_model(tiny, windows, folder, tmp_path):
    model = tiny("gemma3").bfloat16()
    model.save_pretrained(folder)
    source = StreamedBlocks(folder, dtype=torch.float32)

    hidden = hidden_states(1, 0, tmp_path, torch.device("cpu"))
    logits = logits_by_blocks(source, windows, 2, "cpu", hidden)

    expected = perplexity(load_model(folder, dtype=torch.float32), windows, batch_size=2)
    assert perplexity_of_logits(logits, windows) == expected


def test_finished_blocks_run_once_more_and_are_not_pruned_again(
    tiny, windows, folder, tmp_path, caplog
):
    tiny("llama").save_pretrained(folder)
    expected, records = stream(folder, windows, tmp_path / "whole")
    stopped = FinishedBlocks(tmp_path / "work", {"run": 1})

    def stop(weight, inputs):
        if len(stopped) == 2:
            raise KeyboardInterrupt
        return thanos_2_4(weight, inputs)

    with pytest.raises(KeyboardInterrupt):
        prune_model(
            StreamedBlocks(folder, finished=stopped),
            windows,
            stop,
            statistics="gram",
            batch_size=2,
        )
    caplog.set_level(logging.INFO, logger="thanos")
    finished, resumed = stream(folder, windows, tmp_path / "work")

    pruned_again = [said.split(".")[2] for said in caplog.messages if said.startswith("pruned ")]
    assert set(pruned_again) == {"2"}
    assert untimed(resumed) == untimed(records)
    for name, tensor in expected.tensors.items():
        assert torch.equal(read_tensor(finished.tensors[name]), read_tensor(tensor))


def test_nothing_runs_when_all_blocks_are_finished(tiny, windows, folder, tmp_path, monkeypatch):
    tiny("llama").save_pretrained(folder)
    _, records = stream(folder, windows, tmp_path / "work")

    def refuse(*args):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("thanos.models.streaming.read_tensor", refuse)
    _, again = stream(folder, windows, tmp_path / "work")

    assert again == records
