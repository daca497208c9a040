"""A disk that runs full ends the whole command with one line; with room again it goes on."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from thanos.content import file_hash
from thanos.errors import UserError
from thanos.stages.run import main

SIZE = 1536 * 2**10  # of the device; bytes


@pytest.fixture
def small_disk(disk):
    return disk("disk", SIZE)


@pytest.fixture
def overrides(command, model_folder, tmp_path):
    """A run on a model of six blocks, about 100 KiB each."""
    config = LlamaConfig.from_pretrained(
        model_folder, num_hidden_layers=6, hidden_size=96, intermediate_size=128
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).half().save_pretrained(model_folder)
    return lambda out: command("method=wanda", "pattern=2:4", f"output_dir={out}")


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(250, id="while pruning", marks=pytest.mark.slow),
        pytest.param(700, id="while the checkpoint is made"),
    ],
)
def test_one_line_then_the_same_command_goes_on(small_disk, overrides, tmp_path, free):
    main(overrides(tmp_path / "whole"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SIZE - free * 2**10))
    out = small_disk / "out"
    arguments = [sys.executable, "-m", "thanos", *overrides(out)]

    result = subprocess.run(arguments, capture_output=True, text=True)

    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: no space left on device")
    assert "Traceback" not in result.stderr
    assert not out.exists()
    done = len(list((small_disk / "out.partial").rglob("block-*.json")))
    assert done == 6 if free == 700 else 0 < done < 6

    ballast.unlink()
    main(overrides(out))

    assert json.loads((out / "pruning.json").read_text())["resumed_blocks"] == done
    weights = "checkpoint/model.safetensors"
    assert file_hash(out / weights) == file_hash(tmp_path / "whole" / weights)


def test_hidden_states_that_find_no_room_leave_nothing(small_disk, command):
    """In mapped files they take 1 MiB, beside a checkpoint of 100 KiB; there are 700."""
    (small_disk / "ballast").write_bytes(bytes(SIZE - 700 * 2**10))
    given = command("method=wanda", "calibration.windows=350", f"output_dir={small_disk / 'out'}")

    with pytest.raises(UserError, match=r"no space left on device for hidden states .* bytes more"):
        main([*given, "hidden_memory=0"])

    assert not list(small_disk.rglob("hidden-*"))
    assert not (small_disk / "out").exists()
    main(given)
    assert (small_disk / "out").is_dir()
