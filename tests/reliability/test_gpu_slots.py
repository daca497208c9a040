"""One job per GPU; the locks are tested where there is none, for they don't ask CUDA."""

import errno
import fcntl
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

from thanos.errors import UserError
from thanos.workflow.gpus import claim_gpu, name_locks, visible_gpus

JOB = """
import os, sys, time
from thanos.workflow.gpus import claim_gpu
gpu = claim_gpu()
print(gpu, os.environ["CUDA_VISIBLE_DEVICES"], time.monotonic(), flush=True)
time.sleep(float(sys.argv[1]))
print(time.monotonic(), flush=True)
"""


@pytest.fixture
def job(tmp_path):
    """Starts a job that holds a GPU for some seconds."""

    def start(seconds: float, **environment: str) -> subprocess.Popen:
        variables = {"THANOS_GPU_LOCKS": str(tmp_path / "locks"), "CUDA_VISIBLE_DEVICES": "0,3"}
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables, **environment},
        )

    return start


def test_jobs_at_the_same_time_never_share_a_gpu(job):
    jobs = [job(0.3) for _ in range(6)]
    held: dict[str, list[tuple[float, float]]] = {}
    for one in jobs:
        first, last = one.communicate()[0].splitlines()
        gpu, visible, since = first.split()
        assert gpu == visible
        held.setdefault(gpu, []).append((float(since), float(last)))
    assert set(held) == {"0", "3"}
    for times in held.values():
        times.sort()
        for (_, end), (start, _) in itertools.pairwise(times):
            assert end < start


def test_a_killed_job_gives_its_gpu_back(job):
    first = job(60, CUDA_VISIBLE_DEVICES="0")
    assert first.stdout.readline().startswith("0 ")
    second = job(0, CUDA_VISIBLE_DEVICES="0")
    time.sleep(0.5)
    assert second.poll() is None  # waits
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.communicate(timeout=30)[0].startswith("0 ")


def test_jobs_within_an_allocation_share_out_its_gpus(job):
    """Those of another allocation, on another node or of other GPUs, are not waited for."""
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "17"}
    jobs = [job(1, **given), job(1, **given), job(1, **{**given, "SLURM_JOB_ID": "18"})]
    taken = [one.stdout.readline().split() for one in jobs]
    assert {gpu for gpu, *_ in taken[:2]} == {"0", "1"}
    assert taken[2][0] == "0"
    last = min(float(one.stdout.readline()) for one in jobs[:2])
    assert float(taken[2][2]) < last


def test_locks_follow_no_links_and_lie_in_a_folder_of_ones_own(job, tmp_path, monkeypatch):
    victim, locks = tmp_path / "victim", tmp_path / "locks"
    victim.write_text("precious")
    locks.mkdir(mode=0o700)
    (locks / f"{os.uname().nodename}-all-0.lock").symlink_to(victim)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("thanos.workflow.gpus._held", [])

    def refused(folder, why):
        monkeypatch.setenv("THANOS_GPU_LOCKS", str(folder))
        with pytest.raises(UserError, match=why):
            claim_gpu()

    refused(locks, "cannot be opened")
    assert victim.read_text() == "precious"
    (tmp_path / "link").symlink_to(locks)
    refused(tmp_path / "link", "not this user's own folder")
    locks.chmod(0o777)
    refused(locks, "not this user's own folder")

    monkeypatch.delenv("THANOS_GPU_LOCKS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    name_locks()
    assert claim_gpu() == "0"
    (lock,) = (tmp_path / "run" / "thanos" / "gpus").iterdir()
    assert lock.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_named_with_the_way_out(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("thanos.workflow.gpus._held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("THANOS_GPU_LOCKS", str(tmp_path / "locks"))
    with pytest.raises(UserError, match=r"locks has no locks, .* set THANOS_GPU_LOCKS to a folder"):
        claim_gpu()


def test_gpus_of_a_slurm_job_that_names_them_itself(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "2,3")
    assert visible_gpus() == ["2", "3"]


@pytest.mark.parametrize(("value", "gpus"), [("", []), ("-1", []), ("GPU-5a, 1", ["GPU-5a", "1"])])
def test_only_visible_gpus_count(monkeypatch, value, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(
    "variable", ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"]
)
def test_other_makers_gpus_are_claimed_by_their_own_variable(tmp_path, monkeypatch, variable):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv(variable, "2,3")
    monkeypatch.setenv("THANOS_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setattr("thanos.workflow.gpus._held", [])
    assert visible_gpus() == ["2", "3"]
    assert claim_gpu() == os.environ[variable] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
