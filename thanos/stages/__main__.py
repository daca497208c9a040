"""Run a stage: in a process that has its libraries loaded already, if there is one.

python -m thanos.stages prune <spec> --calibration …   (or evaluate, calibrate, …)

Loading torch and transformers takes longer than pruning a small model. A workflow on one machine
therefore starts `thanos.workflow.warm` and names its socket in THANOS_WARM; the stage then runs in
a fork of that process, with this one's arguments, environment, folder and output. Without it, or
wherever it can't be reached, the stage runs here.
"""

import json
import os
import socket
import sys
from importlib import import_module
from pathlib import Path

SOCKET_VARIABLE = "THANOS_WARM"


def run_warm(address: str, arguments: list[str]) -> int | None:
    """Exit status of the stage in a fork of the process at `address`; None if nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        request = {
            "arguments": arguments,
            "folder": str(Path.cwd()),
            "environment": dict(os.environ),
        }
        message = json.dumps(request).encode()
        descriptors = [sys.stdout.fileno(), sys.stderr.fileno()]
        socket.send_fds(connection, [len(message).to_bytes(4)], descriptors)
        connection.sendall(message)
        answer = connection.recv(1)
    return answer[0] if answer else 1  # no answer: it was killed, like any process could be


def main() -> None:
    """Entry point; see the module's docstring."""
    arguments = sys.argv[1:]
    stages = {file.stem for file in Path(__file__).parent.glob("[a-z]*.py")}
    if not arguments or arguments[0] not in stages:
        sys.exit("error: expected the name of a stage: a module of thanos.stages")
    if address := os.environ.get(SOCKET_VARIABLE):
        status = run_warm(address, arguments)
        if status is not None:
            sys.exit(status)
    from ..command import run_command

    sys.argv[:] = arguments
    run_command(import_module(f"thanos.stages.{arguments[0]}").main)


if __name__ == "__main__":
    main()
