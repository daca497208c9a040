"""Time the pruning of single layers: every method against the published formulations, in one run.

    python -m thanos.stages.timing conf/timing/cpu.yaml --output results/timing [threads=2 …]

Methods take turns and every number is the median of several repetitions, so that a busy machine
slows all of them alike. Writes timing.json, a table and log-log figures.
"""

import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from ..artifacts import atomic_folder, write_json
from ..command import parser, run_command
from ..errors import UserError


def measure(suite: Any, device: str) -> list[dict[str, Any]]:
    """Rows of `time_layer` for every layer of a `TimingSuite`, with ratios and growth exponents."""
    from tqdm import tqdm

    from ..timing.measure import growth_exponent, time_layer
    from ..timing.suite import parse_shape

    points = [
        (*point, grid.methods)
        for grid in suite.grids
        for point in product(grid.patterns, grid.block_sizes, map(parse_shape, grid.shapes))
    ]
    rows: list[dict[str, Any]] = []
    for pattern, block_size, shape, methods in tqdm(
        points, desc="timing", unit="layer", disable=None
    ):
        found = time_layer(
            shape, device, methods, pattern, block_size, suite.repeats, suite.patience
        )
        seconds = {row["method"]: row["seconds"] for row in found}
        for row in found:
            for baseline in ("pseudocode", "batched"):
                theirs = seconds.get(f"{baseline}-thanos")
                row[f"{baseline}_ratio"] = theirs / row["seconds"] if theirs else None
        rows += found
    for row in rows:
        line = [
            other
            for other in rows
            if other["rows"] == other["columns"] >= 1024  # smaller layers are mostly overhead
            and all(other[key] == row[key] for key in ("method", "pattern", "block_size"))
        ]
        sizes, times = [r["columns"] for r in line], [r["seconds"] for r in line]
        row["growth"] = growth_exponent(sizes, times) if len(set(sizes)) > 1 else None
    return rows


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("suite", type=Path, help="a file such as conf/timing/cpu.yaml")
    arguments.add_argument("overrides", nargs="*", help="key=value in place of the file's")
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()

    from ..timing.suite import load_timing

    suite = load_timing(given.suite, given.overrides)

    import torch

    from ..accelerator import is_accelerator
    from ..device import resolve_device, used
    from ..identity.fingerprints import stage_fingerprint
    from ..provenance import provenance
    from ..reporting.style import save
    from ..reporting.timing import block_size_figure, timing_table, width_figure
    from ..timing.measure import KNOWN_METHODS
    from .tabulate import RENDERERS

    methods = {method for grid in suite.grids for method in grid.methods}
    if unknown := sorted(methods - set(KNOWN_METHODS)):
        raise UserError(f"unknown method {unknown[0]!r}; known: {', '.join(KNOWN_METHODS)}")
    if suite.threads:
        torch.set_num_threads(suite.threads)
    device, started = resolve_device(suite.device), time.time()
    rows = measure(suite, str(device))
    made = provenance(started, stage_fingerprint("timing"), used=used(device, torch.float32))
    where = rows[0]["device"] if is_accelerator(device) else f"{rows[0]['threads']} CPU threads"
    table = timing_table(rows, f"Pruning time of one layer on {where}, median of {suite.repeats}")
    with atomic_folder(given.output) as folder:
        write_json(folder / "timing.json", {"rows": rows, "provenance": made})
        for suffix, render in RENDERERS.items():
            (folder / f"timing.{suffix}").write_text(render(table), encoding="utf-8")
        for name, figure in (
            ("timing-width", width_figure(rows)),
            ("timing-block-size", block_size_figure(rows)),
        ):
            if figure is not None:
                save(figure, folder, name)
    sys.stdout.write((given.output / "timing.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
