"""What a suite names is fetched once; runs then need no network. The hub is one of our own."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from thanos.content import file_hash
from thanos.errors import UserError
from thanos.paths import PROJECT
from thanos.stages.run import main
from thanos.workflow.catalog import things_of
from thanos.workflow.hub import wanted

from .conftest import run_of
from .fake_hub import FakeHub, commit_of

WIKITEXT = "wikitext-2-raw-v1"
PIQA = {"goal": "To dry a towel", "sol1": "hang it up", "sol2": "drown it", "label": 0}


@pytest.fixture
def hub(model_folder, tmp_path):
    """A hub with the small model, both splits of WikiText-2 and the items of PIQA."""
    folder = tmp_path / "hub"
    stranger = folder / "models" / "someone" / "stranger"
    shutil.copytree(model_folder, stranger)
    tokenizer = AutoTokenizer.from_pretrained(stranger, eos_token="!")  # zero-shot tasks need one
    tokenizer.save_pretrained(stranger)
    wikitext = folder / "datasets" / "Salesforce" / "wikitext" / WIKITEXT
    wikitext.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [f" A line for {split}, number {n} . \n" for n in range(200)]
        parquet.write_table(
            pyarrow.table({"text": rows}), wikitext / f"{split}-00000-of-00001.parquet"
        )
    piqa = folder / "datasets" / "baber" / "piqa" / "data"
    piqa.mkdir(parents=True)
    for split in ("train", "validation"):
        table = pyarrow.Table.from_pylist([PIQA] * 3)
        parquet.write_table(table, piqa / f"{split}-00000-of-00001.parquet")
    with FakeHub(folder) as running:
        yield running


@pytest.fixture
def overrides(tmp_path):
    """A run on public names only."""

    def of(*more):
        return [
            *("model=hf", "model.path=someone/stranger", "model.context=32", "method=wanda"),
            *("calibration=wikitext2", "calibration.windows=4", "evaluation=wikitext2"),
            *("evaluation.tasks=[piqa]", "evaluation.max_windows=4", "pattern=2:4"),
            *(f"output_dir={tmp_path / 'out'}", *more),
        ]

    return of


@pytest.fixture
def start_process(hub, tmp_path):
    """Start a command that knows our hub alone."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "cache"),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return lambda command: subprocess.Popen(command, env=environment, **pipes)


@pytest.fixture
def fetch(start_process, overrides, tmp_path):
    """Start `thanos.stages.mirror` for that run."""

    def start(*more):
        content = json.dumps(wanted([run_of(overrides(*more))]))
        command = [sys.executable, "-m", "thanos.stages.mirror", "--wanted", content]
        command += ["--record", str(tmp_path / "mirror" / "suite.json")]
        return start_process(command)

    return start


def finish(process):
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_a_run_from_a_mirror_needs_no_network(fetch, hub, overrides, tmp_path, monkeypatch):
    status, output = finish(fetch())
    assert status == 0, output
    mirror = tmp_path / "mirror"
    fetched = {file.relative_to(mirror).as_posix() for file in mirror.rglob("[!.]*.*")}
    model = "models/someone/stranger/main"
    assert {
        "suite.json",
        "wikitext2/test-00000-of-00001.parquet",
        "wikitext2/train-00000-of-00001.parquet",
        "zeroshot/piqa.jsonl",
        f"{model}/config.json",
        f"{model}/model.safetensors",
        f"{model}/tokenizer.json",
    } <= fetched
    record = json.loads((mirror / "suite.json").read_text())
    assert record["models"] == {"someone/stranger@main": commit_of("someone/stranger")}
    piqa = record["files"]["zeroshot/piqa.jsonl"]
    assert piqa["revision"] == commit_of("baber/piqa")
    assert piqa["sha256"] == file_hash(mirror / "zeroshot" / "piqa.jsonl")

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    main(overrides(f"mirror={mirror}"))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["perplexity"]["wikitext2"]["windows"] == 4
    assert metrics["zero_shot"]["tasks"]["piqa"]["n"] == 3
    assert metrics["pruning"]["sparsity"] == 0.5

    # Again: only what the hub may have changed is asked for, nothing is fetched twice.
    hub.log.clear()
    monkeypatch.undo()
    status, output = finish(fetch())
    assert status == 0, output
    got = [path for method, path, _ in hub.log if method == "GET" and "/resolve/" in path]
    assert not [path for path in got if path.endswith(".safetensors") or "wikitext" in path]


def test_pickles_of_the_hub_are_safetensors_in_the_mirror(fetch, hub, overrides, tmp_path):
    published = hub.folder / "models" / "someone" / "pickled"
    shutil.copytree(hub.folder / "models" / "someone" / "stranger", published)
    weights = load_file(published / "model.safetensors")
    torch.save(weights, published / "pytorch_model.bin")
    (published / "model.safetensors").unlink()
    (published / "tf_model.h5").write_bytes(b"the same once more")
    more = ("model.path=someone/pickled", "evaluation.tasks=[]")

    status, output = finish(fetch(*more))

    assert status == 0, output
    assert "holds pickled weights (pytorch_model.bin, 0.0 GiB): converting them" in output
    folder = tmp_path / "mirror" / "models" / "someone" / "pickled" / "main"
    assert not {file.suffix for file in folder.parent.rglob("*")} & {".bin", ".h5"}
    found = load_file(folder / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    origin = json.loads((folder / "manifest.json").read_text())["converted_from"]
    assert origin["commit"] == commit_of("someone/pickled")
    assert origin["files"] == {"pytorch_model.bin": file_hash(published / "pytorch_model.bin")}
    main(overrides(*more, f"mirror={tmp_path / 'mirror'}"))
    assert (tmp_path / "out" / "metrics.json").is_file()

    hub.log.clear()
    status, output = finish(fetch(*more))
    assert status == 0, output
    assert not [path for method, path, _ in hub.log if method == "GET" and "/resolve/" in path]


def test_snakemake_mirror_fetches_what_a_suite_names(start_process, tmp_path):
    options = ["--profile", str(PROJECT / "profiles" / "default"), "--cores", "1"]
    chosen = "model=hf model.path=someone/stranger calibration=wikitext2 evaluation=wikitext2"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
    command += [*options, "--directory", str(tmp_path / "work"), "mirror", "--config"]
    command += ["suite=paper", f"mirror={tmp_path / 'mirror'}", f"overrides={chosen}"]

    status, output = finish(start_process(command))

    assert status == 0, output
    record = json.loads((tmp_path / "mirror" / "paper.json").read_text())
    assert set(record["models"]) == {"someone/stranger@main"}
    assert all(name.startswith("wikitext2/") for name in record["files"])
    assert len(record["files"]) == 2
    status, output = finish(start_process(command))
    assert "Nothing to be done" in output


def test_a_fetch_that_was_killed_does_not_fetch_again_what_it_has(fetch, hub, tmp_path):
    hub.stall.add("test-00000-of-00001.parquet")
    process = fetch("evaluation.tasks=[]")
    assert hub.stalled.wait(120)
    process.kill()
    process.wait()
    mirror = tmp_path / "mirror"
    assert not (mirror / "suite.json").exists()
    assert not list(mirror.glob("wikitext2/test*"))
    hub.stall.clear()
    hub.log.clear()

    status, output = finish(fetch("evaluation.tasks=[]"))

    assert status == 0, output
    got = {path.rpartition("/")[2] for method, path, _ in hub.log if method == "GET"}
    assert "test-00000-of-00001.parquet" in got
    assert not {"model.safetensors", "config.json", "train-00000-of-00001.parquet"} & got
    assert not list(mirror.rglob("*.incomplete"))


def test_a_connection_that_breaks_goes_on_where_it_broke(fetch, hub, tmp_path):
    original = hub.folder / "models" / "someone" / "stranger" / "model.safetensors"
    save_file({"w": torch.ones(6 * 2**20)}, original)  # half of it is more than a client's buffer
    hub.cut.add("model.safetensors")

    status, output = finish(fetch("evaluation.tasks=[]"))

    assert status == 0, output
    ranges = [r for _, path, r in hub.log if path.endswith("model.safetensors") and r]
    assert [int(r.removeprefix("bytes=").partition("-")[0]) > 0 for r in ranges] == [True]
    fetched = tmp_path / "mirror" / "models" / "someone" / "stranger" / "main"
    assert file_hash(fetched / "model.safetensors") == file_hash(original)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("model.path=someone/nobody", "model someone/nobody .* is neither a local folder nor on"),
        ("model.revision=v9", "model someone/stranger has no revision v9 on the hub"),
        (
            "model.path=someone/gated",
            "model someone/gated .* is gated: accept its licence .*HF_TOK",
        ),
    ],
)
def test_what_the_hub_does_not_give_comes_with_a_remedy(fetch, hub, tmp_path, more, message):
    hub.gated.add("someone/gated")
    shutil.copytree(hub.folder / "models/someone/stranger", hub.folder / "models/someone/gated")

    status, output = finish(fetch(more))

    assert status == 1
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(line)
    assert "Traceback" not in output
    assert not (tmp_path / "mirror" / "suite.json").exists()


def test_a_model_that_the_mirror_lacks_is_named_with_the_remedy(overrides, tmp_path):
    (tmp_path / "mirror").mkdir()

    with pytest.raises(UserError, match=r"has no model someone/stranger: .*snakemake mirror"):
        main(overrides(f"mirror={tmp_path / 'mirror'}"))


def test_only_what_lies_on_the_hub_is_wanted(command):
    assert wanted([run_of(command()), run_of(["model=doc-llama", "evaluation=testbed"])]) == {
        "models": [],
        "packages": [],
        "calibration": [],
        "evaluation": [],
        "tasks": [],
    }


def test_a_mirror_does_not_change_which_run_it_is(overrides):
    run, mirrored = run_of(overrides()), run_of(overrides("mirror=/data/mirror"))

    assert mirrored.place.mirror == "/data/mirror"
    assert (mirrored.name, mirrored.columns) == (run.name, run.columns)
    assert things_of([mirrored]).keys() == things_of([run]).keys()


@pytest.mark.hub
def test_the_hub_itself_answers_as_ours_does(tmp_path):
    content = json.dumps(
        {
            "models": [["hf-internal-testing/tiny-random-LlamaForCausalLM", "main", False]],
            "calibration": [],
            "evaluation": ["wikitext2", "ptb"],
            "tasks": ["piqa"],
        }
    )
    command = [sys.executable, "-m", "thanos.stages.mirror", "--wanted", content]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0"}
    subprocess.run([*command, "--record", str(tmp_path / "s.json")], check=True, env=environment)
    assert (tmp_path / "zeroshot" / "piqa.jsonl").is_file()
