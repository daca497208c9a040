"""A small model that the project has never seen, with a tokenizer and two texts."""

import os
import subprocess

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from thanos.config import Run, RunBuilder, resolve

CONTEXT = 32


def run_of(overrides: list[str]) -> Run:
    """The run that overrides stand for."""
    return RunBuilder().run(resolve(overrides))


@pytest.fixture
def model_folder(tmp_path):
    """A random LLaMA of width 24, so that 2:4 fits and 2:7 does not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )
    torch.manual_seed(0)
    folder = tmp_path / "stranger"
    AutoModelForCausalLM.from_config(config).half().save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bytes_only).save_pretrained(folder)
    return folder


@pytest.fixture
def disk(tmp_path):
    """`disk(name, size)` is a file system of its own, of so many bytes, below the test's folder."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    mounted = []

    def mount(name, size):
        folder = tmp_path / name
        folder.mkdir()
        made = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(made, capture_output=True).returncode != 0:
            pytest.skip("mounting a tmpfs is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def command(model_folder, tmp_path):
    """The overrides of one run by hand on the model; others are appended."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Line {n} of the calibration text. " for n in range(200)))

    def overrides(*more):
        return [
            "model=hf",
            f"model.path={model_folder}",
            f"model.context={CONTEXT}",
            "calibration=text",
            f"calibration.path={text}",
            "calibration.windows=4",
            "evaluation=text",
            f"evaluation.path={text}",
            f"output_dir={tmp_path / 'out'}",
            *more,
        ]

    return overrides
