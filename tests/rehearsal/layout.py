"""A hub with all that the paper's suite reads, laid out as it is published."""

import os
from pathlib import Path

import yaml
from reliability.fake_hub import FakeHub

from thanos.data.sources import calibration_documents
from thanos.paths import CONF

from .models_of import REPOSITORIES, write_repository
from .texts_of import write_texts

TOKEN = "hf_rehearsal"


def lay_out(folder: Path) -> None:
    """Write the repositories, a few MB; what is there already stays."""
    if (folder / "datasets").exists():
        return
    documents = list(calibration_documents("docstrings"))
    for name in REPOSITORIES:
        write_repository(name, folder / "models" / name, documents[:200])
    write_texts(folder / "datasets", documents)


def hub_of(folder: Path) -> FakeHub:
    """The hub that serves it: every model at the commit that conf/model pins, some gated."""
    hub = FakeHub(folder)
    for file in (CONF / "model").glob("*.yaml"):
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
        if given["path"] in REPOSITORIES:
            hub.commits[given["path"]] = given["revision"]
    hub.gated = {name for name, repository in REPOSITORIES.items() if repository.gated}
    hub.token = TOKEN
    return hub


def environment(hub: FakeHub, folder: Path) -> dict[str, str]:
    """Variables of a command for which this hub is the hub, with a cache of its own."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder.resolve() / "cache"),
        "HF_TOKEN": TOKEN,
    }
