"""Memory of pruning: one block's worth, whatever the depth, and as much as was predicted.

Memory is the peak resident set (VmHWM) of the whole process: interpreter, libraries and all.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from thanos.stages.calibrate import calibrate
from thanos.stages.corpora import cut_corpus

from .conftest import run_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

VOCABULARY = 256
SHARD_BLOCKS = 4
# The stage that is named first, and the process' peak in KiB as the last line.
MEASURED = (
    "import sys\n"
    "from importlib import import_module\n"
    "from pathlib import Path\n"
    "try:\n"
    "    import_module('thanos.stages.' + sys.argv.pop(1)).main()\n"
    "finally:\n"
    "    lines = Path('/proc/self/status').read_text().splitlines()\n"
    "    print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
)


def write_llama(
    folder: Path, tokenizer_of: Path, hidden: int, blocks: int, vocabulary: int = VOCABULARY
) -> int:
    """Write a random LLaMA in bfloat16, some blocks per shard, and return its size in bytes."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=blocks,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        max_position_embeddings=1024,
        dtype="bfloat16",
    )
    folder.mkdir()
    config.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((tokenizer_of / "tokenizer.json").read_bytes())
    described = json.loads((tokenizer_of / "tokenizer_config.json").read_text())
    described["eos_token"] = "Ā"  # byte 0, of which no text has any; tasks need one before a text
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    with torch.device("meta"):
        shapes = {
            n: p.shape for n, p in AutoModelForCausalLM.from_config(config).state_dict().items()
        }
    generator = torch.Generator().manual_seed(0)
    random = {  # the blocks may be alike: what is looked at is memory
        shape: torch.randn(shape, generator=generator).mul_(0.02).bfloat16()
        for shape in sorted(set(shapes.values()))
    }
    shards: dict[str, dict[str, torch.Size]] = {}
    for name, shape in shapes.items():
        block = int(name.split(".")[2]) if ".layers." in name else -1
        shards.setdefault(f"model-{block // SHARD_BLOCKS}.safetensors", {})[name] = shape
    for file, members in shards.items():
        tensors = {
            name: random[shape].clone() if len(shape) == 2 else torch.ones_like(random[shape])
            for name, shape in members.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


@pytest.fixture
def pruned(command, model_folder, tmp_path):
    """`pruned(name, hidden, blocks, *overrides)` prunes such a model in a process of its own.

    It gives the size of the model, the record, the folder, and the run.
    """

    def prune(name, hidden, blocks, *more, windows=8, tokens=256):
        folder = tmp_path / name
        folder.mkdir()
        size = write_llama(folder / "model", model_folder, hidden, blocks)
        run = run_of(
            command(
                f"model.path={folder / 'model'}",
                f"model.context={tokens}",
                f"calibration.windows={windows}",
                *more,
            )
        )
        calibrate(run.pruning.calibration, run.place, folder / "tokens")
        stage = [sys.executable, "-m", "thanos.stages.prune", json.dumps(run.pruning.to_json())]
        stage += ["--place", json.dumps({"device": "cpu"}), "--calibration", str(folder / "tokens")]
        stage += ["--checkpoint", str(folder / "pruned"), "--record", str(folder / "pruning.json")]
        subprocess.run(stage, check=True, capture_output=True, text=True)
        return size, json.loads((folder / "pruning.json").read_text()), folder, run

    return prune


def test_memory_does_not_grow_with_the_depth(pruned):
    peaks = {}
    for blocks in (8, 32):
        _, record, *_ = pruned(f"{blocks}-blocks", 1024, blocks, "method=wanda", "pattern=2:4")
        peaks[blocks] = record["peak_memory_bytes"]

    assert peaks[32] < 1.1 * peaks[8]


@pytest.mark.parametrize("hidden", [512, 1024, 2048])
def test_the_peak_is_as_predicted_or_a_little_less(pruned, hidden):
    _, record, *_ = pruned(f"hidden-{hidden}", hidden, 2, "method=thanos", "pattern=0.5")

    measured, predicted = record["peak_memory_bytes"], record["memory_plan"]["host"]
    assert measured <= predicted <= 1.25 * measured


def test_a_checkpoint_three_times_larger_than_the_memory(pruned, tmp_path):
    """Pruned, and its perplexity measured, by processes whose peak is a third of its size.

    Scored on a task too, by one that has lm-eval loaded besides.
    """
    options = ("method=wanda", "pattern=2:4", "layer_errors=false", "evaluation.max_windows=4")
    (tmp_path / "mirror" / "zeroshot").mkdir(parents=True)
    rows = [{"goal": f"{n}", "sol1": "a b", "sol2": "c", "label": n % 2} for n in range(40)]
    (tmp_path / "mirror" / "zeroshot" / "piqa.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    tasks = ("evaluation.tasks=[piqa]", "evaluation.limit=40", f"mirror={tmp_path / 'mirror'}")
    size, record, folder, run = pruned("large", 1024, 100, *options, *tasks, windows=4, tokens=64)

    assert size > 3 * record["peak_memory_bytes"]
    assert record["sparsity"] == 0.5
    cut_corpus(run.evaluation.windows[0], run.place, folder / "windows")
    corpus, task, _ = run.evaluation.parts()
    place = {"device": "cpu", "mirror": str(tmp_path / "mirror")}

    measured, peak = evaluated(corpus, place, folder, "--windows", str(folder / "windows"))
    assert size > 3 * peak
    assert 1 < measured["corpora"]["text"]["perplexity"] < 10 * VOCABULARY

    measured, peak = evaluated(task, place, folder, "--memory", "900")
    assert size > 2.5 * peak
    assert measured["tasks"]["piqa"]["n"] == 40


def evaluated(spec, place, folder, *more):
    """What a process of its own measures of the pruned model, and its peak in bytes."""
    stage = [sys.executable, "-c", MEASURED, "evaluate", json.dumps(spec.to_json())]
    stage += ["--place", json.dumps(place)]
    stage += ["--checkpoint", str(folder / "pruned"), "--parts", str(folder / "parts")]
    stage += ["--output", str(folder / "evaluation.json"), *more]
    result = subprocess.run(stage, check=True, capture_output=True, text=True)
    peak = 1024 * int(result.stdout.splitlines()[-1])
    return json.loads((folder / "evaluation.json").read_text()), peak
