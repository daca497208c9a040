"""Write a pruned checkpoint as a smaller model, without the heads and neurons that were pruned.

    python -m thanos compact <checkpoint> <folder>
    python -m thanos compact --indices <checkpoint> <folder>

The first is opened by transformers, and whatever else opens the checkpoint: its configuration says
how many heads and neurons are left, the same number in every layer. What no configuration can say
stays zero. The second leaves out every pruned column, keeps where the others stood beside them, and
is opened by `thanos.load_compact(folder)`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..command import parser, run_command
from ..compression.compact_folders import Narrowed, narrow_folder
from ..compression.indexed import index_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; see the module's docstring."""
    options = parser(__doc__)
    options.add_argument(
        "--indices", action="store_true", help="leave out all columns, for thanos.load_compact"
    )
    options.add_argument("source", type=Path, help="the checkpoint to read")
    options.add_argument("target", type=Path, help="the folder to write, which must not exist")
    given = options.parse_args(arguments)
    if given.indices:
        told = index_folder(given.source, given.target)
        sys.stdout.write(f"layers made smaller: {len(told)}\n")
    else:
        sys.stdout.write(_told(narrow_folder(given.source, given.target)))
    sys.stdout.write(f"written: {given.target}\n")


def _told(narrowed: Narrowed) -> str:
    lines = [f"{key}: {value}" for key, value in narrowed.changes.items()]
    lines += [f"{layer}: {count} columns less" for layer, count in narrowed.gone.items()]
    lines += [
        f"{layer}: {count:,} zero columns stay, which the configuration has no number for"
        for layer, count in narrowed.remaining.items()
    ]
    for what, (before, after) in (("parameters", narrowed.parameters), ("bytes", narrowed.bytes)):
        lines.append(f"{what}: {before:,}, now {after:,} ({100 * after / before:.1f}%)")
    lines.append(f"logits: the same within {narrowed.logits_difference:.1e}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
