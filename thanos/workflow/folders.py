"""The results folder as the rules see it."""

import hashlib
from pathlib import Path

from .. import layout


def without_braces(folder: Path) -> Path:
    """The folder, or a link to it without braces, which are wildcards in Snakemake's paths.

    Snakemake knows no way to write them otherwise. The link lies with its own files, below the
    working directory; the folder is made when the first job starts.
    """
    if not {"{", "}"} & set(str(folder)):
        return folder
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
    link = Path(".snakemake") / f"results-{name}"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(folder.absolute())
    return link


def older_layout(results: Path) -> list[Path]:
    """Folders of an older layout of results, which nothing reads any more."""
    return [results / name for name in layout.OLDER if (results / name).is_dir()]
