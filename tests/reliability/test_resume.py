"""A run that is killed goes on where it stopped and ends as if nothing had happened."""

import json
import logging
import multiprocessing
import os
import random
import shutil
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from thanos.content import file_hash
from thanos.errors import UserError
from thanos.stages import prune
from thanos.stages.run import main

BLOCKS = 5
# Python is loaded already in a fork, so that a kill hits the work and not the start-up.
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run(command, model_folder, tmp_path):
    """Overrides of a run on a model of five blocks, which writes to `tmp_path / name`."""
    config = LlamaConfig.from_pretrained(model_folder, num_hidden_layers=BLOCKS, hidden_size=48)
    torch.manual_seed(0)
    folder = tmp_path / "deep"
    shutil.copytree(model_folder, folder)
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)
    options = (f"model.path={folder}", "calibration.windows=16", "calibration.batch_size=4")

    def overrides(name, *more):
        return command(*options, "pattern=2:4", f"output_dir={tmp_path / name}", *more)

    return overrides


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "out.partial"


def outcome(folder):
    """What must not depend on how often the run was killed."""
    record = json.loads((folder / "pruning.json").read_text())
    layers = [{**layer, "seconds": None} for layer in record["layers"]]
    return file_hash(folder / "checkpoint" / "model.safetensors"), layers, record["relative_error"]


def resumed(folder):
    return json.loads((folder / "pruning.json").read_text())["resumed_blocks"]


def finished(partial):
    """Identity and time of every finished block's files."""
    records = sorted(partial.glob("thanos-*/block-*.json"))
    return {
        str(file.relative_to(partial)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for record in records
        for file in (record, record.with_suffix(".safetensors"))
    }


def quietly(overrides):
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    main(overrides)


def kill_after(partial, overrides, blocks, delay):
    """Start the run in a process of its own; kill it `delay` after it has finished `blocks`."""
    process = FORK.Process(target=quietly, args=(overrides,))
    process.start()
    while len(finished(partial)) < 2 * blocks and process.is_alive():
        time.sleep(0.001)
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -9


def test_killed_at_random_moments_it_ends_as_if_never_killed(run, partial, tmp_path):
    main(run("whole"))
    moments = random.Random(0)

    before = {}
    for blocks in (0, 1, 1, 3, 4):
        kill_after(partial, run("out"), blocks, moments.uniform(0, 0.05))
        after = finished(partial)
        assert after.items() >= before.items()  # nothing that was done has been done again
        assert len(after) >= 2 * blocks
        before = after
    done = len(before) // 2
    main(run("out"))

    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")
    assert resumed(tmp_path / "out") == done >= 4
    assert resumed(tmp_path / "whole") == 0
    assert not partial.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_a_truncated_block_is_recognised_and_redone(run, partial, tmp_path, caplog, suffix):
    main(run("whole"))
    kill_after(partial, run("out"), 3, 0)
    (file,) = partial.glob(f"*/block-0001.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    with caplog.at_level(logging.INFO, logger="thanos"):
        main(run("out"))

    lines = [line for line in caplog.messages if "again from" in line]
    assert len(lines) == 1
    assert str(file) in lines[0]
    assert "damaged" in lines[0]
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")
    assert resumed(tmp_path / "out") == 1


@pytest.mark.parametrize("change", ["method.damping=0.1", "seed=1"])
def test_another_configuration_starts_afresh_and_costs_the_first_nothing(
    run, partial, tmp_path, change
):
    main(run("whole", change))
    kill_after(partial, run("out"), 2, 0)
    first = finished(partial)
    kill_after(partial, run("out", change), len(first) // 2 + 1, 0)
    both = finished(partial)
    assert both.items() > first.items()

    main(run("out", change))

    assert resumed(tmp_path / "out") == len(both) // 2 - len(first) // 2 >= 1
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


def test_what_the_spec_does_not_name_starts_afresh_too(run, partial, tmp_path, monkeypatch, caplog):
    kill_after(partial, run("out"), 2, 0)
    found = prune.fingerprint
    monkeypatch.setattr(prune, "fingerprint", lambda *of: changed(found(*of)))

    def changed(fingerprint):
        code = {**fingerprint.code, "thanos.pruning.updates": "of tomorrow"}
        return replace(fingerprint, code=code, libraries={**fingerprint.libraries, "torch": "3"})

    with caplog.at_level(logging.INFO, logger="thanos"):
        main(run("out"))

    (line,) = [line for line in caplog.messages if "starting afresh" in line]
    causes = "code.thanos.pruning.updates, libraries.torch"
    assert f"is of another run ({causes} changed)" in line
    assert resumed(tmp_path / "out") == 0


def test_what_does_not_change_the_weights_does_not_start_afresh(run, partial, tmp_path):
    kill_after(partial, run("out"), 2, 0)
    os.utime(tmp_path / "deep" / "model.safetensors", ns=(0, 0))  # copied, say

    main(run("out", "evaluation.max_windows=2", "hidden_memory=0", "calibration.batch_size=16"))

    assert resumed(tmp_path / "out") >= 2


def test_another_model_in_the_same_folder_is_recognised(run, partial, tmp_path):
    kill_after(partial, run("out"), 2, 0)
    file = tmp_path / "deep" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.4.mlp.up_proj.weight"][0, 0] += 1
    save_file(weights, file, metadata={"format": "pt"})
    main(run("whole"))

    main(run("out"))

    assert resumed(tmp_path / "out") == 0
    assert outcome(tmp_path / "out") == outcome(tmp_path / "whole")


def test_an_error_before_the_first_block_is_finished_leaves_nothing(run, partial, tmp_path):
    with pytest.raises(UserError, match=r"layers\.0\.self_attn\.q_proj: pattern 2:7"):
        main(run("out", "pattern=2:7"))

    assert not partial.exists()
    assert not (tmp_path / "out").exists()


def test_an_error_after_pruning_costs_no_block(run, partial, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("evaluation failed")

    monkeypatch.setattr("thanos.stages.evaluate.perplexity_of_logits", fail)
    with pytest.raises(RuntimeError, match="evaluation failed"):
        main(run("out"))
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()

    main(run("out"))

    assert resumed(tmp_path / "out") == BLOCKS
