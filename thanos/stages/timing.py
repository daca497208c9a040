"""Time the pruning of single layers: every method against the published formulations, in one run.

    python -m thanos.stages.timing --output results/timing [--device cuda] \\
        [--shapes 512x512 1024x1024] [--patterns 0.5 2:4] [--threads 2]

Methods take turns and every number is the median of several repetitions, so that a busy machine
slows all of them alike. Writes timing.json, tables and a log-log figure.
"""

import platform
import re
import sys
from pathlib import Path
from typing import Any

from ..artifacts import atomic_folder, write_json
from ..errors import UserError
from .command import parser, run_command

CPU_SHAPES = ("512x512", "1024x1024", "2048x2048", "4096x4096")
# LLaMA-7B's layers, and one of the size of a 70B model's.
CUDA_SHAPES = (*CPU_SHAPES, "11008x4096", "4096x11008", "8192x28672")


def parse_shape(text: str) -> tuple[int, int]:
    """(rows, columns) from `4096x11008`.

    Raises:
        UserError: for another form.
    """
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise UserError(f"shape {text!r}: expected rows x columns such as 4096x11008")
    return int(match[1]), int(match[2])


def measure(
    shapes: list[tuple[int, int]],
    patterns: list[str],
    methods: list[str],
    block_size: int | None,
    repeats: int,
    device: str,
) -> list[dict[str, Any]]:
    """Rows of `time_layer` for every shape and pattern, with ratios and growth exponents."""
    from tqdm import tqdm

    from ..timing.measure import growth_exponent, time_layer

    rows: list[dict[str, Any]] = []
    points = [(shape, pattern) for pattern in patterns for shape in shapes]
    for shape, pattern in tqdm(points, desc="timing", unit="layer", disable=None):
        found = time_layer(shape, device, methods, pattern, block_size, repeats)
        naive = next((row["seconds"] for row in found if row["method"] == "naive-thanos"), None)
        rows += [{**row, "ratio": naive / row["seconds"] if naive else None} for row in found]
    for row in rows:
        line = [
            other
            for other in rows
            if other["rows"] == other["columns"]
            and all(other[key] == row[key] for key in ("method", "pattern", "block_size"))
        ]
        sizes, seconds = [r["columns"] for r in line], [r["seconds"] for r in line]
        row["growth"] = growth_exponent(sizes, seconds) if len(set(sizes)) > 1 else None
    return rows


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--shapes", nargs="+")
    arguments.add_argument("--patterns", nargs="+", default=["0.5"])
    arguments.add_argument("--methods", nargs="+")
    arguments.add_argument("--block-size", type=int)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--threads", type=int)
    given = arguments.parse_args()

    import torch

    from ..reporting.render import to_csv, to_latex, to_markdown, to_terminal
    from ..reporting.style import save
    from ..reporting.timing import timing_figure, timing_table
    from ..timing.measure import KNOWN_METHODS
    from .device import resolve_device

    if given.threads:
        torch.set_num_threads(given.threads)
    device = resolve_device(given.device)
    shapes = given.shapes or (CUDA_SHAPES if device.type == "cuda" else CPU_SHAPES)
    methods = given.methods or list(KNOWN_METHODS)
    if unknown := sorted(set(methods) - set(KNOWN_METHODS)):
        raise UserError(f"unknown method {unknown[0]!r}; known: {', '.join(KNOWN_METHODS)}")
    rows = measure(
        [parse_shape(shape) for shape in shapes],
        given.patterns,
        methods,
        given.block_size,
        given.repeats,
        str(device),
    )
    where = rows[0]["device"] if device.type == "cuda" else f"{rows[0]['threads']} CPU threads"
    table = timing_table(rows, f"Pruning time of one layer on {where}, median of {given.repeats}")
    with atomic_folder(given.output) as folder:
        facts = {"torch": torch.__version__, "machine": platform.machine()}
        write_json(folder / "timing.json", {"rows": rows, **facts})
        renderers = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "txt": to_terminal}
        for suffix, render in renderers.items():
            (folder / f"timing.{suffix}").write_text(render(table), encoding="utf-8")
        save(timing_figure(rows), folder, "timing")
    sys.stdout.write((given.output / "timing.txt").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_command(main)
