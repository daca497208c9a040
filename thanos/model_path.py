"""Where the model of a run lies."""

from pathlib import Path

from .config import PROJECT, Config
from .errors import UserError
from .models.location import is_hub_id, mirrored_folder


def model_path(config: Config) -> str:
    """The model's folder, or its hub id if there is no mirror to look it up in.

    The testbed's models are found from any working directory.

    Raises:
        UserError: the mirror has no such model.
    """
    path, revision = config.model.path, config.model.revision
    if (PROJECT / path).is_dir():
        return str(PROJECT / path)
    if config.mirror is None or not is_hub_id(path):
        return path
    folder = mirrored_folder(Path(config.mirror), path, revision)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"mirror {config.mirror} has no model {path}: {folder} holds no config.json; run "
            "`snakemake mirror` where there is network, or copy the model's folder there"
        )
    return str(folder)
