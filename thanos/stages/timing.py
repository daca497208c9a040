"""Time the pruning of single layers, beside the published formulations, or of whole models.

    python -m thanos.stages.timing conf/timing/cpu.yaml --output results/timing [threads=2 …]

Methods take turns and every number is the median of several repetitions, so that a busy machine
slows all of them alike. Writes timing.json, tables, and log-log figures of layers.
"""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from ..artifacts import atomic_folder, write_json
from ..command import parser, run_command
from ..errors import UserError

_TODAY = "today"  # the code as it is
_TOKENIZED_LIKE = "thanos/testbed/models/doc-llama"  # random models


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


def measure_prunings(suite: Any, device: Any, threads: int, work: Path) -> list[dict[str, Any]]:
    """Rows of `thanos.timing.whole.summary` for every pruning of a `TimingSuite`, by every code.

    Args:
        suite: with `prunings`.
        device: where they are done.
        threads: of the CPU.
        work: an empty folder.

    Raises:
        UserError: a revision does not exist, or a pruning fails or is none.
    """
    from ..accelerator import is_accelerator
    from ..evaluation.synthetic import write_random_model
    from ..paths import PROJECT, SOURCE
    from ..timing.whole import OperationCounter, summary, time_pruning, unpack_revision
    from ..workflow.gpus import LOCKS_VARIABLE
    from .prune import prune

    trees = {revision: work / f"tree-{n}" for n, revision in enumerate(suite.revisions)}
    for revision, tree in trees.items():
        unpack_revision(PROJECT, revision, tree)
    trees[_TODAY] = SOURCE
    os.environ.pop(LOCKS_VARIABLE, None)  # what is started here has the device of this process
    common = [*suite.common, f"device={device}"]
    if suite.random is not None:
        model, like = work / "model", SOURCE / _TOKENIZED_LIKE
        write_random_model(model, **asdict(suite.random), tokenized_like=like, device=device)
        common += ["model=hf", f"model.path={model}", f"model.context={suite.random.context}"]
    rows = []
    for number, own in enumerate(suite.prunings):
        overrides = [*common, *own]
        folder, tokens = work / str(number), work / str(number) / "tokens"
        spec, place = _prepared(overrides, tokens)
        drawn = None if spec.calibration is None else tokens
        operations = None
        if not is_accelerator(device):  # whose rate depends on the dtype, and on the size
            with OperationCounter() as counter:
                prune(spec, place, drawn, folder / "counted", folder / "counted.partial")
            operations = counter.count or None
        measured: dict[str, list[dict[str, Any]]] = {code: [] for code in trees}
        for repeat in range(suite.repeats):
            for code in sorted(trees, reverse=bool(repeat % 2)):
                output = folder / str(len(measured[code])) / str(list(trees).index(code))
                found = time_pruning(trees[code], overrides, drawn, output, threads, device)
                measured[code].append(found)
                shutil.rmtree(output)
        for code, several in measured.items():
            row = summary(several, operations)
            rows.append({"pruning": " ".join(own), "code": code, **row, "measured": several})
    return rows


def _prepared(overrides: list[str], tokens: Path) -> tuple[Any, Any]:
    """Spec and place of a pruning, its tokens drawn and its model there."""
    from ..config import RunBuilder, resolve
    from ..opening import dequantized_folder
    from .calibrate import calibrate
    from .dequantize import make_once

    run = RunBuilder().run(resolve(overrides))
    spec = run.pruning
    if spec is None:
        raise UserError(f"{' '.join(overrides)}: expected a pruning")
    if spec.model.gguf is not None:
        make_once(spec.model, run.place, dequantized_folder(spec.model, run.place))
    if spec.calibration is not None:
        calibrate(spec.calibration, run.place, tokens)
    return spec, run.place


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

    from ..accelerator import device_name, is_accelerator
    from ..device import resolve_device, used
    from ..evaluation.synthetic import FAMILIES
    from ..identity.fingerprints import stage_fingerprint
    from ..provenance import provenance
    from ..reporting.prunings import prunings_table
    from ..reporting.style import save
    from ..reporting.timing import block_size_figure, timing_table, width_figure
    from ..timing.measure import KNOWN_METHODS
    from .tabulate import RENDERERS

    methods = {method for grid in suite.grids for method in grid.methods}
    if unknown := sorted(methods - set(KNOWN_METHODS)):
        raise UserError(f"unknown method {unknown[0]!r}; known: {', '.join(KNOWN_METHODS)}")
    if suite.random is not None and suite.random.family not in FAMILIES:
        raise UserError(f"random.family is {suite.random.family}; known: {', '.join(FAMILIES)}")
    if suite.threads:
        torch.set_num_threads(suite.threads)
    device, started = resolve_device(suite.device), time.time()
    threads = torch.get_num_threads()
    where = f"{threads} CPU threads"
    if is_accelerator(device):
        where = device_name(device) or str(device)
    how = f"median of {suite.repeats}"
    found, tables, figures = {}, [], {}
    if suite.grids:
        found["rows"] = rows = measure(suite, str(device))
        tables.append(timing_table(rows, f"Pruning time of one layer on {where}, {how}"))
        figures = {"timing-width": width_figure(rows)}
        figures |= {"timing-block-size": block_size_figure(rows)}
    if suite.prunings:
        with tempfile.TemporaryDirectory(prefix="thanos-") as work:
            found["prunings"] = measure_prunings(suite, device, threads, Path(work))
        title = f"Time of whole prunings on {where}, {how}"
        tables.append(prunings_table(found["prunings"], title))
    made = provenance(started, stage_fingerprint("timing"), used=used(device, torch.float32))
    with atomic_folder(given.output) as folder:
        write_json(folder / "timing.json", {**found, "provenance": made})
        for table in tables:
            for suffix, render in RENDERERS.items():
                (folder / f"{table.name}.{suffix}").write_text(render(table), encoding="utf-8")
        for name, figure in figures.items():
            if figure is not None:
                save(figure, folder, name)
    for table in tables:
        sys.stdout.write(RENDERERS["txt"](table))


if __name__ == "__main__":
    run_command(main)
