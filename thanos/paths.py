"""Where the project and what a configuration names lie."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# The folder that `thanos/` lies in: of the checkout, or where packages are installed.
SOURCE = _PACKAGE.parent
# The folder of conf/, rules/, Snakefile, profiles/ and reference values: a wheel has it inside.
PROJECT = _PACKAGE / "project" if (_PACKAGE / "project").is_dir() else SOURCE
CONF = PROJECT / "conf"


def expanded(path: str | Path) -> Path:
    """A path with `~` expanded; a name that begins with one and is nobody's stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path's own fails where there is no user)


def model_folder(path: str) -> Path | None:
    """The local folder that `model.path` names, if there is one; absolute.

    It is looked for where the user stands; the testbed's models are found from anywhere.
    """
    for folder in (expanded(path), SOURCE / path):
        if folder.is_dir():
            return folder.absolute()
    return None
