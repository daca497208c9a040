"""A recovery as a part of one run by hand, on a model that the project has never seen."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from thanos.artifacts import verify_manifest
from thanos.errors import UserError
from thanos.recovery import training
from thanos.stages.run import main


@pytest.fixture
def run(command, tmp_path):
    """Does a run with a recovery of a few steps; returns its folder."""

    def run(name, *more):
        text = f"recovery.path={tmp_path / 'text.txt'}"
        options = ("recovery.source=text", text, "recovery.steps=3", "recovery.batch_size=2")
        given = command(f"output_dir={tmp_path / name}", *options, *more)
        dense = "method=dense" in more
        main([option for option in given if not (dense and option.startswith("calibration."))])
        return tmp_path / name

    return run


def weights(folder):
    return dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())


def read(file):
    return json.loads(file.read_text())


@pytest.mark.parametrize("recovery", ["full", "lora"])
def test_what_is_trained_has_the_zeros_of_what_was_pruned(command, run, tmp_path, recovery):
    main(command("pattern=2:4", f"output_dir={tmp_path / 'pruned'}"))
    out = run("out", "pattern=2:4", f"recovery={recovery}")

    assert {"pruning.json", "recovery.json", "checkpoint", "metrics.json"} <= {
        path.name for path in out.iterdir()
    }
    verify_manifest(out / "checkpoint", maker="rule recover")
    record = read(out / "recovery.json")
    assert read(out / "pruning.json")["sparsity"] == record["sparsity"] == 0.5
    assert record["zeros"] == record["zeros_before"] == record["weights_of_layers"] // 2
    assert record["overfull_groups"] == 0
    assert len(record["losses"]) == 3
    pruned, trained = weights(tmp_path / "pruned/checkpoint"), weights(out / "checkpoint")
    for name, weight in trained.items():
        if "_proj" in name:
            assert not weight[pruned[name] == 0].any(), name
            assert not torch.equal(weight, pruned[name]), name
        assert weight.dtype == torch.float16
    used = record["provenance"]["fingerprint"]
    assert {"accelerate", "torch"} <= used["libraries"].keys()
    assert ("peft" in used["libraries"]) == (recovery == "lora")
    before, after = (
        read(f / "metrics.json")["perplexity"]["text"]["perplexity"]
        for f in (tmp_path / "pruned", out)
    )
    assert after < before


def test_mixed_groups_stay_as_they_are_and_are_not_measured_by_the_mean(run):
    mixed = ("pattern=4:8", "method.allocation=owl", "method.allocation_mixed=true")
    out = run("out", *mixed, "method.allocation_spread=0.3", "recovery=full")
    assert len({row["sparsity"] for row in read(out / "pruning.json")["layers"]}) > 1
    record = read(out / "recovery.json")
    assert record["sparsity"] == record["sparsity_before"] == 0.5
    assert record["overfull_groups"] is None


def test_the_dense_model_can_be_trained_alike(run, model_folder):
    out = run("out", "method=dense", "recovery=full")
    record = read(out / "recovery.json")
    assert record["sparsity"] == record["sparsity_before"]
    assert record["overfull_groups"] is None
    before, after = weights(model_folder), weights(out / "checkpoint")
    assert not any(torch.equal(before[name], after[name]) for name in before if "_proj" in name)


def test_an_error_in_the_training_costs_no_block_and_no_step(run, tmp_path, monkeypatch):
    whole = run("whole", "recovery=full")
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    ends = training._Watch.on_log

    def fail(self, args, state, control, **given):
        if state.global_step == 3:
            raise KeyboardInterrupt
        return ends(self, args, state, control, **given)

    with monkeypatch.context() as patched:
        patched.setattr(training._Watch, "on_log", fail)
        with pytest.raises(KeyboardInterrupt):
            run("out", "recovery=full")
    assert not (tmp_path / "out").exists()

    out = run("out", "recovery=full")

    assert read(out / "pruning.json")["resumed_blocks"] == 2
    assert read(out / "recovery.json")["resumed_step"] == 2
    expected, found = weights(whole / "checkpoint"), weights(out / "checkpoint")
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-3, rtol=1e-3)  # half precision
    assert not (tmp_path / "out.partial").exists()


def test_what_cannot_be_is_one_line(command):
    with pytest.raises(UserError, match=r"forward_batch is 3; it must divide recovery.batch_size"):
        main(command("recovery=full", "recovery.forward_batch=3"))
    with pytest.raises(UserError, match=r"recovery.weights is 'some'; expected all, lora"):
        main(command("recovery=full", "recovery.weights=some"))
    with pytest.raises(UserError, match=r"key 'recovery.path' must be given"):
        main(command("recovery=full", "recovery.source=text"))
