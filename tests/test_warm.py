"""Stages in forks of a process that has the libraries loaded."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STAGE = [sys.executable, "-m", "thanos.stages"]
LIST = ["list_runs", "regression", "--quick", "--output", "runs.json"]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory):
    """A running warm process; the value is the environment of its clients."""
    address = tmp_path_factory.mktemp("warm") / "stages"
    command = [sys.executable, "-m", "thanos.workflow.warm", str(address)]
    process = subprocess.Popen([*command, "thanos.stages.list_runs"], stdin=subprocess.PIPE)
    wait_for(address.exists, seconds=60)
    yield {**os.environ, "THANOS_WARM": str(address)}
    process.stdin.close()
    assert process.wait(timeout=30) == 0  # it ends with its parent


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(arguments: list[str], environment: dict[str, str], folder: Path):
    return subprocess.run(
        [*STAGE, *arguments], env=environment, cwd=folder, capture_output=True, text=True
    )


def test_a_stage_does_the_same_warm_and_cold(warm, tmp_path: Path) -> None:
    arguments = [*LIST, "--overrides", "method=wanda", "pattern=2:4"]
    files = []
    for name, environment in (("warm", warm), ("cold", dict(os.environ))):
        (tmp_path / name).mkdir()
        result = run(arguments, environment, tmp_path / name)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        files.append((tmp_path / name / "runs.json").read_text())
    assert files[0] == files[1]


def test_an_error_reaches_the_caller(warm, tmp_path: Path) -> None:
    result = run([*LIST, "--overrides", "method=obs"], warm, tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: suite regression, block 2, axis method: unknown meth")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs.json").exists()
    assert run(["list_runs"], warm, tmp_path).returncode == 2  # argparse's status


def test_without_a_warm_process_the_stage_starts_by_itself(tmp_path: Path) -> None:
    environment = {**os.environ, "THANOS_WARM": str(tmp_path / "nobody")}
    result = run(LIST, environment, tmp_path)
    assert result.returncode == 0
    assert (tmp_path / "runs.json").is_file()


@pytest.mark.parametrize("arguments", [[], ["prunes"], ["../config"], ["warm"]])
def test_what_is_no_stage_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    result = run(arguments, dict(os.environ), tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: expected the name of a stage: a module of thanos.stages\n"


def test_a_client_that_dies_early_leaves_the_others_alone(warm, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(warm["THANOS_WARM"])
        socket.send_fds(connection, [(1000).to_bytes(4)], [1, 2])  # and no message
    assert run(LIST, warm, tmp_path).returncode == 0


def test_a_stage_ends_with_its_client(warm, tmp_path: Path) -> None:
    (server,) = (
        process
        for process in psutil.Process().children()
        if warm["THANOS_WARM"] in process.cmdline()
    )
    # Reads and parses the corpus: takes seconds.
    arguments = ["continuations", "--output", str(tmp_path / "items")]
    client = subprocess.Popen([*STAGE, *arguments], env=warm, cwd=tmp_path)
    wait_for(server.children)
    client.kill()
    client.wait()
    wait_for(lambda: not any(stage.is_running() for stage in at_work(server)), seconds=10)
    assert not (tmp_path / "items").exists()


def at_work(server: psutil.Process) -> list[psutil.Process]:
    """The stages that are not over; the server reaps those that are at the next request."""
    return [stage for stage in server.children() if stage.status() != psutil.STATUS_ZOMBIE]
