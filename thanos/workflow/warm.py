"""A process with the libraries of the stages loaded, which runs each stage in a fork of itself.

python -m thanos.workflow.warm <socket> [module to load] …   (started by the workflow)

It ends with the process that started it: when its standard input is closed. Every stage is a
process of its own, so that nothing passes from one to the next. Only for stages on the CPU: CUDA
does not survive a fork.
"""

import atexit
import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path

from ..command import parser, run_command
from ..identity.fingerprints import stage_fingerprint
from ..paths import SOURCE
from .suites import Suite

MOST_AT_ONCE = 256
SOCKET_VARIABLE = "THANOS_WARM"
_STAGE = "thanos.stages."  # what the name of a stage's module starts with
_STAGES = ("calibrate", "corpora", "prune", "evaluate")
_MODELS = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.opt.modeling_opt",
)
_ZERO_SHOT = ("lm_eval.evaluator", "lm_eval.models.huggingface")


def start_warm_process(suites: Iterable[Suite], threads: int) -> None:
    """Start it in the background; jobs that come before it is ready don't wait for it.

    Args:
        suites: that are to be made.
        threads: per job.
    """
    with_tasks = any(run.evaluation.tasks for suite in suites for run in suite.runs)
    trained = any(run.recovery for suite in suites for run in suite.runs)
    stages = (*_STAGES, "recover") if trained else _STAGES
    modules = [*(f"{_STAGE}{stage}" for stage in stages), *_MODELS]
    modules += _ZERO_SHOT if with_tasks else ()
    folder = tempfile.TemporaryDirectory(prefix="thanos-")
    address = f"{folder.name}/stages"
    process = subprocess.Popen(
        [sys.executable, "-m", "thanos.workflow.warm", address, *modules],
        stdin=subprocess.PIPE,  # it ends when this is closed, however Snakemake ends
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": str(threads)},
    )
    os.environ.update({SOCKET_VARIABLE: address})

    def end() -> None:
        process.communicate()
        folder.cleanup()

    atexit.register(end)


class _Stage(socketserver.BaseRequestHandler):
    """One stage, in the forked process."""

    request: socket.socket

    def handle(self) -> None:
        """Become the stage that the client asks for, and tell it the exit status."""
        size, descriptors, _, _ = socket.recv_fds(self.request, 4, 2)
        if len(size) < 4 or len(descriptors) < 2:
            return  # the client has gone
        wanted = json.loads(self.request.makefile("rb").read(int.from_bytes(size)) or "null")
        if wanted is None:
            return
        for descriptor, place in zip(descriptors, (1, 2), strict=True):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.chdir(wanted["folder"])
        os.environ.clear()
        os.environ.update(wanted["environment"])
        _use_threads(wanted["environment"].get("OMP_NUM_THREADS", ""))
        threading.Thread(target=self._end_with_client, daemon=True).start()
        status = _run(wanted["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
        self.request.sendall(bytes([status]))
        os._exit(status)

    def _end_with_client(self) -> None:
        if not self.request.recv(1):  # nothing is ever sent: the client was killed
            os.kill(os.getpid(), signal.SIGTERM)


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = MOST_AT_ONCE
    request_queue_size = MOST_AT_ONCE


def _use_threads(asked: str) -> None:
    """As many as the job asks for: torch looked at the environment when it was loaded."""
    import torch

    if asked.isdigit() and int(asked) not in (0, torch.get_num_threads()):
        torch.set_num_threads(int(asked))


def _run(arguments: list[str]) -> int:
    """Run the stage as its own command would; return its exit status."""
    sys.argv[:] = arguments
    try:
        run_command(importlib.import_module(f"thanos.stages.{arguments[0]}").main)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
            return 1
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = parser(__doc__)
    arguments.add_argument("socket", type=Path)
    arguments.add_argument("modules", nargs="*")
    given = arguments.parse_args()
    given.socket.unlink(missing_ok=True)
    with _Server(str(given.socket), _Stage, bind_and_activate=False) as server:
        _load(given.modules)
        server.server_bind()
        server.server_activate()
        threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
        server.serve_forever()


def _load(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # compiles the rules for all models, 0.3 s
    for module in modules:  # of the source that is loaded, however the files change from now on
        if module.startswith(_STAGE):
            stage_fingerprint(module.removeprefix(_STAGE))


def _end_with_parent(server: _Server) -> None:
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    run_command(main)
