"""What jobs ask for: of memory, time, GPUs, and of one machine's cores."""

import pytest

from thanos.config import RunBuilder, resolve
from thanos.data.sources import CONTRASTS, SOURCES
from thanos.identity import Place
from thanos.workflow import machine, resources
from thanos.workflow.needs import Needs, needs_of, threads_of
from thanos.workflow.resources import Machine

GIB = 2**30
HOST = Machine(memory=64 * GIB, gpus=False)
CLUSTER = Machine(memory=64 * GIB, gpus=True, gpus_per_job=1)


@pytest.fixture(scope="module")
def run():
    given = ["model=doc-llama", "evaluation.efficiency=true", "recovery=full"]
    return RunBuilder().run(resolve(given))


def things(run):
    evaluation, pruning = run.evaluation, run.pruning
    cut = [pruning.calibration, evaluation.windows[0]]
    return [*cut, pruning, run.recovery, evaluation, run.latency]


def test_every_attempt_asks_for_more_memory_and_time(run):
    for spec in things(run):
        one, three = (needs_of(spec, run.place, HOST, attempt) for attempt in (1, 3))
        assert (three.mem_mb, three.runtime) == (3 * one.mem_mb, 3 * one.runtime)
        assert one.gpu == three.gpu == 0


def test_the_size_of_every_text_is_known():
    """One that is missing would count as nothing."""
    cut = {"calibration": (*SOURCES, *CONTRASTS), "evaluation": SOURCES}
    texts = {(use, source) for use, sources in cut.items() for source in sources}
    assert resources._TEXTS.keys() == texts - {(use, "text") for use in cut}


def test_whatever_computes_has_a_gpu_of_its_own_on_a_cluster(run):
    assert [needs_of(spec, run.place, CLUSTER).gpu for spec in things(run)] == [0, 0, 1, 1, 1, 1]
    on_cpu = Place(device="cpu")
    assert {needs_of(spec, on_cpu, CLUSTER).gpu for spec in things(run)} == {0}


def test_a_model_that_is_not_here_gets_room(run):
    given = ["model=llama-2-7b", "evaluation.efficiency=true", "recovery=full"]
    elsewhere = RunBuilder().run(resolve(given))
    for spec in things(elsewhere)[2:]:
        assert needs_of(spec, elsewhere.place, HOST).mem_mb >= 16000


@pytest.mark.parametrize(
    "more",
    [["recovery.distillation=1"], ["recovery.batch_size=64"], ["recovery=full"]],
)
def test_what_a_training_keeps_is_asked_for(more):
    def memory(*given):
        run = RunBuilder().run(resolve(["recovery=lora", *given]))
        return needs_of(run.recovery, run.place, HOST).mem_mb

    assert memory(*more) > memory()
    halved = memory("recovery.batch_size=64", "recovery.forward_batch=8")
    assert halved == memory("recovery.batch_size=8")


@pytest.mark.parametrize(
    ("megabytes", "jobs", "threads"),
    [
        (2000, 1, 1),  # small ones run beside each other
        (10_000, 1, 16),  # alone on the machine
        (10_000, 40, 2),  # six fit into 64 GiB
        (10_000, 3, 5),
        (90_000, 40, 16),  # not even one does
    ],
)
def test_large_jobs_share_the_cores(megabytes, jobs, threads):
    assert threads_of(Needs(megabytes, 60, 0), HOST, 16, jobs) == threads


def test_memory_is_what_control_groups_and_slurm_leave(monkeypatch, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "memory.max").write_text("max\n")
    (tmp_path / "memory.max").write_text(f"{2 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {GIB // 2}\n")
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/job\n")
    lines = machine._lines
    monkeypatch.setattr(
        machine, "_lines", lambda file: lines(cgroup if file.name == "cgroup" else file)
    )
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert machine.total_memory() == 2 * GIB
    assert machine.available_memory() == 2 * GIB - GIB // 2
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "512")
    assert machine.total_memory() == machine.available_memory() == GIB // 2
