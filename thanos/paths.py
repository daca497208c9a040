"""Where the project and what a configuration names lie."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CONF = PROJECT / "conf"


def model_folder(path: str) -> Path | None:
    """The local folder that `model.path` names, if there is one; absolute.

    The testbed's models are found from any working directory.
    """
    for folder in (Path(path).expanduser(), PROJECT / path):
        if folder.is_dir():
            return folder.absolute()
    return None
