"""The suite of the paper on a real Slurm, from a mirror of a hub laid out like the real one.

All 360 runs with models of two blocks take hours on two cores; those of two methods under 2:4, on
all eighteen models, less than one. With a folder in REHEARSAL what is finished stays there, and the
next rehearsal goes on from it.
"""

import os
from pathlib import Path

import pytest
from rehearsal.commands import FEWER_WINDOWS, check_suite, offline, snakemake
from rehearsal.layout import environment, hub_of, lay_out

from thanos.workflow.suites import load_suite

from .conftest import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(12 * 3600)]

PARTS = {"all": "", "two-methods": "method=dense,wanda,thanos pattern=2:4 outlier_fraction=0"}


@pytest.mark.parametrize("part", PARTS)
def test_the_paper(slurm: Slurm, tmp_path, part) -> None:
    folder = Path(os.environ.get("REHEARSAL", tmp_path)).absolute()
    if not (folder / "hub").exists():
        lay_out(folder / "hub")
    mirror = str(folder / "mirror")
    with hub_of(folder / "hub") as hub:
        variables = environment(hub, folder)
        chosen = {"suite": "paper", "mirror": mirror, "overrides": PARTS[part]}
        done = snakemake("mirror", folder / "work", variables, "--cores", "1", **chosen)
    assert done.returncode == 0, done.stdout + done.stderr

    overrides = f"{PARTS[part]} {FEWER_WINDOWS} tracking=disabled"
    chosen = {"mirror": mirror, "overrides": overrides, "keep_checkpoints": "false"}
    done = snakemake("paper", folder / "work", offline(), profile="slurm", **chosen)

    assert done.returncode == 0, done.stdout + done.stderr
    table = check_suite(folder / "work", len(load_suite("paper", PARTS[part].split()).runs))
    published = [line for line in table.splitlines() if "published" in line.lower()]
    assert published, table
