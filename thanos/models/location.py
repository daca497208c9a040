"""Where a model lies: a local folder or a hub id, and which files hold its weights."""

import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from thanos.errors import UserError

from .safetensors_layout import read_layout

_SINGLE_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DESCRIPTION_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_WEIGHT_FILES = ["model*.safetensors"]
_CONVERT = (
    "weights in pickle files are refused because opening one can run code; convert them once with "
    "save_pretrained, or name a revision of the hub that holds safetensors (often refs/pr/<number>)"
)


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
    wanted = _DESCRIPTION_FILES + _WEIGHT_FILES * weights + ["*.py"] * trust_remote_code
    return _download(str(path), revision, wanted)


def cached_folder(path: str | Path, revision: str | None = None) -> Path | None:
    """Return the folder of the model at `path` with its weights if it is on this machine."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if _looks_like_a_path(str(path)):
        return None
    try:
        wanted = _DESCRIPTION_FILES + _WEIGHT_FILES
        return Path(
            snapshot_download(
                str(path), revision=revision, allow_patterns=wanted, local_files_only=True
            )
        )
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, each checked to be complete.

    Raises:
        UserError: there are none, one that the index names is missing, or one is damaged.
    """
    files = _listed_weight_files(folder)
    for file in files:
        if not file.is_file():
            raise UserError(f"weight file {file} is missing; copy or download the model again")
        read_layout(file)
    return files


def _listed_weight_files(folder: Path) -> list[Path]:
    if (folder / _SINGLE_FILE).exists():
        return [folder / _SINGLE_FILE]
    index = folder / _INDEX
    if index.exists():
        try:
            names = json.loads(index.read_text())["weight_map"].values()
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"weight index {index} is damaged; download the model again") from error
        return [folder / name for name in sorted(set(names))]
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    if pickles:
        raise UserError(f"{folder} holds only {', '.join(pickles)}: {_CONVERT}")
    raise UserError(f"{folder} holds no weights (model*.safetensors); {_CONVERT}")


def _looks_like_a_path(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") > 1


def _download(name: str, revision: str | None, wanted: list[str]) -> Path:
    where = f"{name} (revision {revision})" if revision else name
    try:
        # Only the top folder: repositories keep other formats of the same weights below it.
        folder = snapshot_download(
            name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]
        )
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
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"model {where} is no local folder and not in the hub's cache, and the hub cannot be "
            "reached; set HF_ENDPOINT to a mirror, or give a local folder"
        ) from error
    except OSError as error:  # other answers of the hub, broken connections, a full disk
        raise UserError(f"model {where} cannot be downloaded: {_first_line(error)}") from error
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{where} on the hub is not a model: it has no config.json")
    return Path(folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
