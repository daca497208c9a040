"""Pack a checkpoint folder into a smaller one without loss, or restore it.

    python -m thanos pack <checkpoint> <packed folder>
    python -m thanos unpack <packed folder> <checkpoint>

Packed weights are their non-zero values and a bitmask; the restored folder is identical.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..command import parser, run_command
from ..compression.folders import pack_folder, unpack_folder

ACTIONS = ("pack", "unpack")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument("action", choices=ACTIONS)
    options.add_argument("source", type=Path, help="the folder to read")
    options.add_argument("target", type=Path, help="the folder to write, which must not exist")
    given = options.parse_args(arguments)
    if given.action == "unpack":
        unpack_folder(given.source, given.target)
        sys.stdout.write(f"written: {given.target}\n")
        return
    sizes = pack_folder(given.source, given.target)
    share = 100 * sizes.packed / sizes.dense if sizes.dense else 100
    sys.stdout.write(
        f"weights: {sizes.dense:,} bytes, packed {sizes.packed:,} ({share:.1f}%)\n"
        f"written: {given.target}\n"
    )


if __name__ == "__main__":
    run_command(main)
