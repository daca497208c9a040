"""The paper's suite against a hub laid out like the real one, with models of two blocks.

The whole of it, on Slurm, is in tests/slurm/test_rehearsal.py.
"""

import json

import pytest

from thanos.workflow.suites import load_suite

from .commands import FEWER_WINDOWS, check_suite, offline, snakemake
from .layout import TOKEN, environment, hub_of, lay_out
from .models_of import REPOSITORIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# Pickles in two shards with mixed names; one gated, with tied weights and scaled positions.
CUT = "model=opt-6.7b,llama-3.2-1b method=wanda,thanos pattern=2:4 outlier_fraction=0"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    lay_out(folder)
    return folder


@pytest.fixture
def hub(published):
    with hub_of(published) as running:
        yield running


def test_the_hub_has_what_the_suite_names(published):
    models = {run.evaluation.base.path for run in load_suite("paper").runs}
    assert models == REPOSITORIES.keys()
    pickled = {name for name in models if not any((published / "models" / name).glob("*.safe*"))}
    assert pickled == {name for name in models if name.startswith("facebook/")}


def test_straight_from_the_hub(hub, published, tmp_path):
    overrides = f"{CUT} {FEWER_WINDOWS} tracking=disabled"
    variables = environment(hub, tmp_path)
    done = snakemake("paper", tmp_path / "work", variables, "--cores", "2", overrides=overrides)
    assert done.returncode == 0, done.stdout + done.stderr
    table = check_suite(tmp_path / "work", 2 * 3)
    assert "Thanos" in table
    log = "".join(file.read_text() for file in tmp_path.glob("work/results/**/*.log"))
    assert log.count("converting them to safetensors, once") == 1
    # No file was fetched that is not read.
    got = {path.rpartition("/")[2] for method, path, _ in hub.log if method == "GET"}
    assert not [name for name in got if name.endswith((".h5", ".msgpack", ".pth"))]


def test_from_a_mirror_without_network(hub, tmp_path):
    overrides = f"{CUT} {FEWER_WINDOWS} tracking=disabled"
    mirror = str(tmp_path / "mirror")
    chosen = {"suite": "paper", "mirror": mirror, "overrides": overrides}
    work = tmp_path / "work"
    without = {k: v for k, v in environment(hub, tmp_path).items() if k != "HF_TOKEN"}
    refused = snakemake("mirror", work, without, "--cores", "1", **chosen)
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "meta-llama/Llama-3.2-1B" in said
    assert "is gated: accept its licence on the hub and set HF_TOKEN" in said

    fetched = snakemake("mirror", work, environment(hub, tmp_path), "--cores", "1", **chosen)
    assert fetched.returncode == 0, fetched.stdout + fetched.stderr
    assert TOKEN not in "".join(f.read_text() for f in (tmp_path / "mirror").rglob("*.log"))
    record = json.loads((tmp_path / "mirror" / "paper.json").read_text())
    assert set(record["models"].values()) <= set(hub.commits.values())

    hub.log.clear()
    chosen = {"mirror": mirror, "overrides": overrides}
    done = snakemake("paper", work, offline(), "--cores", "2", **chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    check_suite(work, 2 * 3)
    assert not hub.log
