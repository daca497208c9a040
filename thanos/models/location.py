"""Where a model lies: a local folder or a hub id, and which files hold its weights."""

import functools
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from thanos.errors import UserError, is_full_disk
from thanos.untrusted import inside

from .pickles import (
    PICKLED,
    convert,
    converted_folder,
    converted_from,
    indexed_files,
    pickle_files,
    safetensors_folder,
)
from .safetensors_layout import read_layout
from .shards import INDEX, LICENCES, shards_without_index

_SINGLE_FILE = "model.safetensors"
_DESCRIPTION_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", *LICENCES]
_WEIGHT_FILES = "model*.safetensors"
_HUB_SECONDS = 10.0  # to wait for an answer that is good to have
_unreachable: list[Exception] = []  # why the hub could not be asked
_OTHER_PICKLES = (".bin", ".pt", ".pth")


def local_folder(
    path: str | Path,
    revision: str | None = None,
    *,
    weights: bool,
    trust_remote_code: bool = False,
) -> Path:
    """Return the folder of the model at `path`, downloaded first if `path` is a hub id.

    Args:
        path: a folder or a hub id such as `facebook/opt-125m`; a folder wins.
        revision: branch, tag or commit on the hub; ignored for a folder.
        weights: whether the weight files are wanted too.
        trust_remote_code: fetch the model's own Python files too.

    Raises:
        UserError: no such folder, or the hub does not give the model.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{path} is not a model folder: it has no config.json")
        return folder
    if folder.exists():
        raise UserError(f"{path} is a file; expected a model folder or a hub id")
    if _looks_like_a_path(str(path)):
        raise UserError(
            f"model folder {path} does not exist; give an existing folder or a hub id such as "
            "facebook/opt-125m"
        )
    with _hub_errors(str(path), revision):
        found = _snapshot(str(path), revision, _wanted_files(weights, trust_remote_code))
        if weights and not any(found.glob(_WEIGHT_FILES)):
            return _snapshot(str(path), revision, [PICKLED])
        return found


def cached_folder(path: str | Path, revision: str | None = None) -> Path | None:
    """Return the folder of the model at `path` if all its weights are on this machine.

    A local folder is returned as it is; where weights are pickles, the folder of what was made of
    them, if it was.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return converted_folder(folder) if is_pickled(folder) else folder
    if _looks_like_a_path(str(path)):
        return None
    try:
        wanted = _wanted_files(weights=True, code=False)
        cached = Path(
            snapshot_download(
                str(path), revision=revision, allow_patterns=wanted, local_files_only=True
            )
        )
        if is_pickled(cached):
            return converted_folder(cached)
        weight_files(cached)
    except (LocalEntryNotFoundError, HFValidationError, UserError):  # none, or some of them
        return None
    return cached


def with_safetensors(folder: Path, trust_remote_code: bool) -> Path:
    """The folder, or if its weights are pickles a folder of the same model with safetensors.

    Raises:
        UserError: the pickles cannot be converted.
    """
    return safetensors_folder(folder, trust_remote_code) if is_pickled(folder) else folder


@functools.cache
def hub_commit(name: str, revision: str | None) -> str | None:
    """The commit that a hub model's revision stands for: on this machine, or else on the hub.

    None if it is not here and the hub cannot be asked.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return Path(
            snapshot_download(
                name, revision=revision, allow_patterns="config.json", local_files_only=True
            )
        ).name
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    return _commit_on_hub(name, revision)


def _commit_on_hub(name: str, revision: str | None) -> str | None:
    if _unreachable:  # asking for the next model would take as long again
        return None
    try:
        return HfApi().model_info(name, revision=revision, timeout=_HUB_SECONDS).sha
    except httpx2.TransportError as error:
        _unreachable.append(error)
    except (OSError, ValueError):  # offline by choice; no such model; no such name
        pass
    return None


def is_hub_id(path: str | Path) -> bool:
    """Whether `path` can only be a model on the hub: no folder, and not spelt like one."""
    return not _looks_like_a_path(str(path)) and not Path(path).exists()


def mirrored_folder(mirror: Path, name: str, revision: str | None) -> Path:
    """Where a mirror keeps the hub's model `name`: one folder per revision.

    Raises:
        UserError: name or revision lead out of the mirror.
    """
    try:
        return inside(inside(mirror / "models", name), revision or "main")
    except ValueError as error:
        raise UserError(f"model {name} (revision {revision}): {error}") from error


def fetch_model(
    name: str, revision: str | None, folder: Path, *, trust_remote_code: bool = False
) -> str:
    """Download a model from the hub into `folder`, or complete it there; return its commit.

    Files that are there already and unchanged on the hub are not fetched again; one that was cut
    short is. Where the hub has pickles only, the folder gets the safetensors made of them.

    Raises:
        UserError: the hub does not give the model, or its pickles cannot be converted.
    """
    wanted = _wanted_files(weights=True, code=trust_remote_code)
    with _hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision)
    commit, files = str(info.sha), [file.rfilename for file in info.siblings or ()]
    if any(Path(file).match(_WEIGHT_FILES) and "/" not in file for file in files):
        _fetch(name, commit, wanted, folder)
        weight_files(folder)
        return commit
    downloads = folder.with_name(f".{folder.name}.pickled")
    if converted_from(folder).get("commit") != commit:
        _fetch(name, commit, [*wanted, PICKLED], downloads)
        convert(downloads, folder, trust_remote_code, commit=commit)
    shutil.rmtree(downloads, ignore_errors=True)
    return commit


def _fetch(name: str, commit: str, wanted: list[str], folder: Path) -> None:
    for left_by_a_kill in folder.rglob("*.incomplete"):
        left_by_a_kill.unlink()
    with _hub_errors(name, commit):
        _snapshot(name, commit, wanted, local_dir=folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, each checked to be complete.

    Raises:
        UserError: there are none, one that the index names is missing, or one is damaged.
    """
    files = listed_weight_files(folder)
    if is_pickled(folder):
        raise UserError(
            f"{folder} holds pickles only ({files[0].name}); open it by with_safetensors"
        )
    for file in files:
        if not file.is_file():
            raise UserError(f"weight file {file} is missing; copy or download the model again")
        read_layout(file)
    return files


def listed_weight_files(folder: Path) -> list[Path]:
    """Return the files that a model folder says its weights are in, unchecked: pickles if it must.

    Raises:
        UserError: it has none, or its index cannot be read.
    """
    if is_pickled(folder):
        return pickle_files(folder)
    if (folder / _SINGLE_FILE).exists():
        return [folder / _SINGLE_FILE]
    if (folder / INDEX).exists():
        return indexed_files(folder / INDEX)
    if shards := shards_without_index(folder):
        return shards
    others = sorted(p.name for p in folder.iterdir() if p.suffix in _OTHER_PICKLES)
    raise UserError(
        f"{folder} holds no weights: neither model*.safetensors nor {PICKLED}"
        + (f", only {', '.join(others)}; save it with save_pretrained" if others else "")
    )


def is_pickled(folder: Path) -> bool:
    """Whether a model folder's weights are pickles: safetensors go before them."""
    return not any(folder.glob(_WEIGHT_FILES)) and bool(pickle_files(folder))


def _looks_like_a_path(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") > 1


def _wanted_files(weights: bool, code: bool) -> list[str]:
    return _DESCRIPTION_FILES + [_WEIGHT_FILES] * weights + ["*.py"] * code


def _snapshot(name: str, revision: str | None, wanted: list[str], **options: Any) -> Path:
    # Only the top folder: repositories keep other formats of the same weights below it.
    folder = Path(
        snapshot_download(
            name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"], **options
        )
    )
    if not (folder / "config.json").is_file():
        raise UserError(f"{name} on the hub is not a model: it has no config.json")
    return folder


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Say in one line why the hub does not give a model, and what to do."""
    where = f"{name} (revision {revision})" if revision else name
    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"model {where} is gated: accept its licence on the hub and set HF_TOKEN, "
            "or give a local folder"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"model {name} has no revision {revision} on the hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"model {where} is neither a local folder nor on the hub; check the name, and for a "
            "private model set HF_TOKEN"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.ConnectError) as error:
        raise UserError(
            f"model {where} is no local folder and not in the hub's cache, and the hub cannot be "
            "reached; set mirror to a folder made by `snakemake mirror`, or give a local folder"
        ) from error
    except (OSError, httpx2.HTTPError) as error:  # other answers of the hub, broken connections
        if is_full_disk(error):
            raise
        raise UserError(
            f"model {where} cannot be downloaded: {_first_line(error)}; run the "
            "same command again, it fetches what is missing"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
