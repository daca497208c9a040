"""Make the items of the testbed's zero-shot task from held-out documents.

python -m thanos.stages.continuations --output results/testbed/continuations
"""

import time
from pathlib import Path

from ..artifacts import atomic_folder, write_manifest
from ..command import parser, run_command
from ..identity.fingerprints import stage_fingerprint
from ..provenance import provenance
from ..testbed.continuations import DATA_FILE, make_items, write_items
from ..testbed.corpus import corpus_hash, extract


def write_task(folder: Path) -> None:
    """Write the items and their manifest to `folder`."""
    started, found = time.time(), stage_fingerprint("continuations")
    documents = list(extract("heldout"))
    with atomic_folder(folder) as temporary:
        write_items(make_items(documents), temporary / DATA_FILE)
        facts = {"heldout_sha256": corpus_hash(documents), "provenance": provenance(started, found)}
        write_manifest(temporary, facts)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    write_task(arguments.parse_args().output)


if __name__ == "__main__":
    run_command(main)
