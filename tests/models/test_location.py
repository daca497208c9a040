import errno
import json
from types import SimpleNamespace

import httpx2
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import save_file

from thanos.errors import UserError
from thanos.models import location
from thanos.models.location import cached_folder, hub_commit, local_folder, weight_files


@pytest.fixture
def folder(tmp_path):
    """A folder with a config.json and nothing else."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_folder_is_itself(folder):
    assert local_folder(folder, weights=True) == folder


def test_a_hub_id_is_downloaded_without_pickles_or_code(folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        location, "snapshot_download", lambda name, **options: asked.update(options) or str(folder)
    )
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")

    assert local_folder("facebook/opt-125m", "refs/pr/3", weights=True) == folder
    assert asked["revision"] == "refs/pr/3"
    assert "model*.safetensors" in asked["allow_patterns"]
    assert not any(p.endswith((".bin", ".py")) for p in asked["allow_patterns"])

    local_folder("facebook/opt-125m", weights=False, trust_remote_code=True)
    assert not any("safetensors" in pattern for pattern in asked["allow_patterns"])
    assert "*.py" in asked["allow_patterns"]


def test_pickles_are_downloaded_where_there_is_nothing_else(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        location,
        "snapshot_download",
        lambda name, **options: asked.append(options["allow_patterns"]) or str(folder),
    )

    local_folder("facebook/opt-125m", weights=False)
    assert len(asked) == 1
    local_folder("facebook/opt-125m", weights=True)
    assert asked[-1] == ["pytorch_model*.bin"]


@pytest.mark.parametrize("path", ["/no/such/folder", "./nothing", "runs/models/nothing"])
def test_missing_folder(path):
    with pytest.raises(UserError, match=f"model folder {path} does not exist; give"):
        local_folder(path, weights=True)


def test_file_instead_of_folder(folder):
    with pytest.raises(UserError, match="is a file; expected a model folder"):
        local_folder(folder / "config.json", weights=True)


def test_folder_without_config(tmp_path):
    with pytest.raises(UserError, match=r"is not a model folder: it has no config\.json"):
        local_folder(tmp_path, weights=True)


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (GatedRepoError("gated", response=answer(403)), "is gated: .* HF_TOKEN.* local folder"),
        (RepositoryNotFoundError("no", response=answer(404)), "neither a local folder nor on the"),
        (RevisionNotFoundError("no", response=answer(404)), "has no revision v9 on the hub"),
        (LocalEntryNotFoundError("offline"), "cannot be reached; set mirror to a folder"),
        (
            HfHubHTTPError("500 Server Error\nmore", response=answer(500)),
            "500 Server Error; run the same",
        ),
        (httpx2.ReadTimeout("slow"), "cannot be downloaded: slow; run the same command again"),
    ],
)
def test_what_the_hub_refuses_comes_with_a_remedy(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(location, "snapshot_download", fail)

    with pytest.raises(UserError, match=message) as caught:
        local_folder("some/model", "v9", weights=True)
    assert "some/model" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_not_the_hubs_fault(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(location, "snapshot_download", fail)

    with pytest.raises(OSError, match="No space left"):
        local_folder("some/model", weights=True)


def test_impossible_hub_name():
    with pytest.raises(UserError, match="neither a local folder nor on the hub"):
        local_folder("no such--name", weights=True)


def test_weights_in_one_file_or_in_shards(folder):
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({"w": torch.ones(2)}, folder / name)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [f.name for f in weight_files(folder)] == ["model-1.safetensors", "model-2.safetensors"]

    (folder / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2\.safetensors is missing; copy or download"):
        weight_files(folder)


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        *(json.dumps({"weight_map": given}) for given in ("w", {"w": 1}, {"w": []})),
        *(json.dumps({"weight_map": {"w": f"{place}w.safetensors"}}) for place in ("../", "/")),
    ],
)
def test_an_index_that_names_no_files_of_its_folder(folder, index):
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        weight_files(folder)

    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    assert [f.name for f in weight_files(folder)] == ["model.safetensors"]


def test_no_weights(folder):
    with pytest.raises(UserError, match=r"no weights: neither model\*\.safetensors nor pytorch_m"):
        weight_files(folder)
    (folder / "consolidated.00.pth").write_bytes(b"never opened")
    with pytest.raises(UserError, match=r"only consolidated\.00\.pth; save it with save_pretrain"):
        weight_files(folder)


def test_pickled_weights_are_not_opened_as_they_are(folder):
    (folder / "pytorch_model.bin").write_bytes(b"never opened")

    with pytest.raises(UserError, match=r"holds pickles only \(pytorch_model\.bin\); open it by"):
        weight_files(folder)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_named(folder, share):
    file = folder / "model.safetensors"
    save_file({"w": torch.ones(1000)}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])

    with pytest.raises(UserError, match=r"weight file \S+model\.safetensors is damaged"):
        weight_files(folder)


def test_only_what_is_on_this_machine_has_a_cached_folder(folder, tmp_path, monkeypatch):
    def not_there(name, **options):
        assert options["local_files_only"]
        raise LocalEntryNotFoundError("not in the cache")

    monkeypatch.setattr(location, "snapshot_download", not_there)

    assert cached_folder(folder) == folder
    assert cached_folder(tmp_path / "absent") is None
    assert cached_folder("someone/somewhat") is None
    monkeypatch.setattr(location, "snapshot_download", lambda name, **options: str(folder))
    assert cached_folder("someone/somewhat") is None  # its weights are still to come
    save_file({"w": torch.ones(2)}, folder / "model.safetensors")
    assert cached_folder("someone/somewhat") == folder


class Hub:
    """Answers for the hub, or refuses to; counts the questions."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self):
        return self

    def model_info(self, name, *, revision, timeout):
        self.asked.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer)


@pytest.fixture
def hub(monkeypatch):
    """Return `hub(answer)`: nothing is on this machine, and the hub says that."""

    def not_here(name, **options):
        assert options["local_files_only"]
        raise LocalEntryNotFoundError("not in the cache")

    def hub(answer):
        answering = Hub(answer)
        monkeypatch.setattr(location, "HfApi", answering)
        return answering

    monkeypatch.setattr(location, "snapshot_download", not_here)
    monkeypatch.setattr(location, "_unreachable", [])
    hub_commit.cache_clear()
    yield hub
    hub_commit.cache_clear()


def test_a_commit_stands_for_itself_and_a_branch_for_what_it_is_today(hub, monkeypatch):
    asked = hub("c0" * 20).asked
    assert hub_commit("some/model", "ab" * 20) == "ab" * 20
    assert asked == []
    assert [hub_commit("some/model", "main") for _ in range(2)] == ["c0" * 20] * 2
    assert asked == [("some/model", "main")]
    # What has been downloaded is what will be used.
    monkeypatch.setattr(location, "snapshot_download", lambda *_, **__: "/cache/snapshots/5a5a")
    assert hub_commit("some/model", None) == "5a5a"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("error", "questions"),
    [
        (httpx2.ConnectTimeout("slow"), 1),  # the next would wait as long again
        (RepositoryNotFoundError("no", response=answer(404)), 2),
        (OfflineModeIsEnabled("offline"), 2),
    ],
)
def test_a_hub_that_cannot_tell_is_no_error(hub, error, questions):
    asked = hub(error).asked
    assert [hub_commit(f"some/model-{n}", None) for n in range(2)] == [None, None]
    assert len(asked) == questions
