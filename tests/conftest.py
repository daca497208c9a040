"""Fixtures shared by all tests."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from thanos.workflow import suite_files

# Two threads more or less change the last bits; the suite runs the same everywhere.
torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The executor's plugin asks Slurm at every start of Snakemake, and waits for ten seconds where
# Slurm is installed and does not run; with an empty configuration it answers at once.
os.environ["SLURM_CONF"] = os.devnull

_REAL = torch.accelerator.current_accelerator(check_available=True)
if _REAL is None:
    # Before the first backward pass, at which torch counts the devices that gradients may be on.
    import virtual_device

# Hashes of files that tests write are nothing to remember.
_cache = tempfile.TemporaryDirectory(prefix="thanos-cache-")
os.environ["THANOS_CACHE"] = _cache.name


@pytest.fixture
def accelerator() -> Iterator[torch.device]:
    """This machine's accelerator, or the virtual one where it has none."""
    if _REAL is not None:
        yield torch.device(_REAL.type, 0)
        return
    with virtual_device.attached() as device:
        yield device


@pytest.fixture
def virtual(accelerator: torch.device) -> ModuleType:
    """The module of the virtual one, for what only that tells."""
    if _REAL is not None:
        pytest.skip("a real accelerator does not tell what a program waits for")
    return virtual_device


@pytest.fixture
def write_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], int]:
    """Write the only suite, `mine`."""
    monkeypatch.setattr(suite_files, "CONF", tmp_path)
    (tmp_path / "suite").mkdir()
    file = tmp_path / "suite" / "mine.yaml"
    return lambda content: file.write_text(yaml.safe_dump(content))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the accelerator is one of its tests.

    Where tests run in several processes, one takes all of a file, whose fixtures are costly, or all
    that look at the same finished workflow.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "accelerator" in fixtures:
            item.add_marker("accelerator")
        group = "finished" if "finished" in fixtures else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
