"""The conda environments of the rules and the lock file name the same versions."""

import re
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parent.parent / "envs"


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def locked():
    lines = (ENVS / "lock.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pins}


def test_the_lock_file_pins_everything():
    pins = locked()
    assert pins["torch"] == "2.13.0"
    for dependency in ("snakemake", "hydra-core", "transformers", "lm-eval", "wandb", "pandas"):
        assert dependency in pins


@pytest.mark.parametrize("file", sorted(ENVS.glob("*.yaml")), ids=lambda file: file.stem)
def test_conda_environments_agree_with_the_lock_file(file):
    pins = locked()
    dependencies = yaml.safe_load(file.read_text())["dependencies"]
    packages = [part for entry in dependencies if isinstance(entry, dict) for part in entry["pip"]]
    assert packages
    for package in packages:
        name, version = package.split("==")
        assert pins[canonical(name)] == version
