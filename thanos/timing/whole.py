"""Whole prunings of a model: seconds by part, beside what their arithmetic alone would take."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from thanos.errors import UserError

# Runs the pruning stage of the tree in PYTHONPATH, whatever its revision, and prints how long it
# took. On the CPU square products in float32 around it tell the machine's rate at that moment; of
# an accelerator the driver tells, again and again meanwhile, whether it computes.
_TIMED = """
import json, sys, threading, time
import torch
from thanos.config import RunBuilder, resolve
from thanos.stages.prune import main

torch.set_num_threads({threads})
run = RunBuilder().run(resolve({overrides!r}))
sys.argv[1:1] = [json.dumps(run.pruning.to_json()), "--place", json.dumps(run.place.to_json())]
x, y = torch.randn(2, {width}, {width})

def clocks():
    return time.perf_counter(), time.process_time()

def spent(action, *arguments):
    began = clocks()
    action(*arguments)
    return [end - start for end, start in zip(clocks(), began)]

torch.mm(x, y)
before = [spent(torch.mm, x, y) for _ in range({rounds})]
try:
    from thanos.accelerator import busy_share
except ImportError:  # in older revisions
    def busy_share(device):
        return None

busy, ended = [], threading.Event()

def watch():
    while not ended.wait({interval}):
        busy.append(busy_share(torch.device({device!r})))

threading.Thread(target=watch).start()
try:
    stage = spent(main)
finally:
    ended.set()
after = [spent(torch.mm, x, y) for _ in range({rounds})]
print(json.dumps({{"stage": stage, "products": before + after, "busy": busy}}))
"""
_INTERVAL = 0.1  # seconds
_WIDTH, _ROUNDS = 2048, 6


def unpack_revision(repository: Path, revision: str, folder: Path) -> None:
    """Write the tree of a git revision to `folder`.

    Raises:
        UserError: the repository has no such revision.
    """
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", str(repository), "archive", revision], capture_output=True
    )
    if archive.returncode != 0:
        raise UserError(f"revision {revision!r} is not in the git repository {repository}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def time_pruning(
    tree: Path,
    overrides: Sequence[str],
    tokens: Path | None,
    folder: Path,
    threads: int,
    device: torch.device,
) -> dict[str, Any]:
    """Prune by a tree of this project, in a process of its own.

    Args:
        tree: the folder that holds its package.
        overrides: of the run.
        tokens: folder of the calibration tokens, if it calibrates.
        folder: to write to; not there yet.
        threads: of the CPU.
        device: where it prunes.

    Returns:
        Wall-clock and processor `seconds` of the stage, without start-up, and of one floating-point
        operation in the CPU's products beside it; `parts` of the record, of an old one `solve`
        alone, and its `peak_memory_bytes`; the `busy_share` of an accelerator, if that is told.

    Raises:
        UserError: the stage failed; the message ends with its last line.
    """
    code = _TIMED.format(
        **{"overrides": list(overrides), "threads": threads, "device": str(device)},
        **{"width": _WIDTH, "rounds": _ROUNDS, "interval": _INTERVAL},
    )
    arguments = [] if tokens is None else ["--calibration", str(tokens)]
    arguments += ["--checkpoint", str(folder / "checkpoint"), "--record", str(folder / "record")]
    python_path = os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"pruning by {tree} failed: {last}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    record = json.loads((folder / "record").read_text())
    layers = record["layers"]
    wall, processor = (sorted(column) for column in zip(*found["products"], strict=True))
    middle, operations = len(wall) // 2, 2 * _WIDTH**3
    busy = [share for share in found["busy"] if share is not None]
    return {
        "seconds": found["stage"][0],
        "processor_seconds": found["stage"][1],
        "seconds_per_operation": wall[middle] / operations,
        "processor_seconds_per_operation": processor[middle] / operations,
        "parts": record.get(
            "seconds_by_part", {"solve": sum(layer["seconds"] for layer in layers)}
        ),
        "peak_memory_bytes": record.get("peak_memory_bytes"),
        "busy_share": mean(busy) if busy else None,
    }


def summary(measured: Sequence[dict[str, Any]], operations: int | None) -> dict[str, Any]:
    """A row of what `time_pruning` measured several times: medians, and ratios to the limit.

    The limit is what so many operations take at the rate of the products measured beside them:
    `limit_ratio` by the clock on the wall, `processor_limit_ratio` by processor time, of which a
    busy machine changes little. Both are None where no operations were counted.
    """
    row: dict[str, Any] = {"repeats": len(measured), "operations": operations}
    for kind in ("", "processor_"):
        row[f"{kind}seconds"] = median(one[f"{kind}seconds"] for one in measured)
        row[f"{kind}limit_ratio"] = operations and median(
            one[f"{kind}seconds"] / (operations * one[f"{kind}seconds_per_operation"])
            for one in measured
        )
    row["products_per_second"] = 1 / median(one["seconds_per_operation"] for one in measured)
    for key in ("busy_share", "peak_memory_bytes"):
        known = [one[key] for one in measured if one[key] is not None]
        row[key] = median(known) if known else None
    row["parts"] = {
        name: median(one["parts"][name] for one in measured) for name in measured[0]["parts"]
    }
    return row


class OperationCounter(TorchDispatchMode):
    """Counts the floating-point operations inside its context, in this thread.

    Of products, attention (of a causal one the half that counts), factorisations and solutions of
    systems; what is elementwise is left out, and what is only rehearsed on the meta device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and add what it takes."""
        given = kwargs or {}
        result = func(*args, **given)
        count = _OPERATIONS.get(func.overloadpacket)
        if count is not None and not args[0].is_meta:
            self.count += count(*args, **given)
        return result


def _product(*args: Tensor, **_: Any) -> int:
    """Of the last two; in front of them may be what is added."""
    left, right = args[-2:]
    return 2 * left.numel() * right.shape[-1]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, _: float = 0.0, is_causal: bool = False, **__: Any
) -> int:
    """Scores, and their sums of the values."""
    scores = math.prod(query.shape[:-1]) * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1]) * (1 if is_causal else 2)


_ATEN = torch.ops.aten
_OPERATIONS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((_ATEN.mm, _ATEN.bmm), _product),
    **dict.fromkeys((_ATEN.addmm, _ATEN.addmm_, _ATEN.baddbmm), _product),
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN.linalg_cholesky_ex: lambda a, **_: a.numel() * a.shape[-1] // 3,
    _ATEN.linalg_solve_triangular: lambda a, b, **_: b.numel() * a.shape[-1],
    _ATEN.cholesky_solve: lambda b, a, *_, **__: 2 * b.numel() * a.shape[-1],
}
