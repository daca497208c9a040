"""How fast this machine computes: measured in a second, and remembered for a day.

python -m thanos.workflow.speed <threads>

Time of the process is measured, not time on the wall: what else the machine does meanwhile does not
count, and is not in an estimate made of it either.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec

from ..command import parser, run_command
from ..content import cache_folder
from ..paths import SOURCE

_ROWS, _WIDTH, _ROUNDS = 2048, 1024, 7
_REMEMBERED = 86_400  # seconds: what slowed the machine down that day may be gone


@dataclass(frozen=True)
class Speed:
    """Of one job.

    Attributes:
        products: floating-point operations per second in matrix products, float32.
        numbers: numbers per second in SiLU and a product, element by element.
    """

    products: float
    numbers: float


def machine_speed(threads: int) -> Speed | None:
    """The speed of a job with this many threads, measured if it is not remembered.

    None where it cannot be: the program that plans may have no torch, if jobs bring their own.
    """
    if find_spec("torch") is None:
        return None
    about = {
        "machine": platform.node(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": version("torch"),
        "threads": threads,
    }
    file = cache_folder() / f"speed-{threads}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["about"] == about and time.time() - file.stat().st_mtime < _REMEMBERED:
            return Speed(**known["speed"])
    measured = subprocess.run(
        [sys.executable, "-m", "thanos.workflow.speed", str(threads)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if measured.returncode != 0:
        return None
    speed = Speed(**json.loads(measured.stdout))
    with suppress(OSError):  # it only saves time
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"about": about, "speed": asdict(speed)}), encoding="utf-8")
    return speed


def _measure(threads: int) -> Speed:
    import torch

    torch.set_num_threads(threads)
    x, w = torch.randn(_ROWS, _WIDTH), torch.randn(_WIDTH, _WIDTH)
    gate, up = torch.randn(2, _ROWS, _WIDTH)
    products = _best(lambda: x @ w) / threads
    numbers = _best(lambda: torch.nn.functional.silu(gate) * up) / threads
    return Speed(2 * _ROWS * _WIDTH**2 / products, _ROWS * _WIDTH / numbers)


def _best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds, summed over threads."""
    seconds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        action()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("threads", type=int)
    sys.stdout.write(json.dumps(asdict(_measure(arguments.parse_args().threads))) + "\n")


if __name__ == "__main__":
    run_command(main)
