"""One job per GPU; the locks are tested where there is none, for they don't ask CUDA."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

from thanos.workflow.gpus import visible_gpus

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


def test_a_cluster_assigns_gpus_itself(job):
    said = job(0, SLURM_JOB_ID="17").communicate()[0]
    assert said.startswith("None 0,3 ")


@pytest.mark.parametrize(("value", "gpus"), [("", []), ("-1", []), ("GPU-5a, 1", ["GPU-5a", "1"])])
def test_only_visible_gpus_count(monkeypatch, value, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus
