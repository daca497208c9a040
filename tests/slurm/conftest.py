"""A real Slurm on this machine: munge, a controller and two nodes, on loopback."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).parent.parent.parent
CONFIGURATION = Path("/etc/slurm/slurm.conf")  # the executor plugin takes SLURM_CONF from jobs
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurm-wlm-basic-plugins")
MARK = "# written by Thanos' tests\n"
NODES = ("node1", "node2")


def install() -> None:
    """Install Debian's packages where they are missing; skip where that cannot be done."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if all(map(shutil.which, PROGRAMS)):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("Slurm is not installed, and only root of a Debian can install it here")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-qq", *command], capture_output=True, env=environment)
        if done.returncode != 0:
            pytest.skip(f"apt-get {command[0]} failed: {done.stderr.decode().strip()[-200:]}")


class Slurm:
    """The daemons; those that are started are stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        self.key, self.socket = folder / "munge.key", folder / "munge.socket"

    def start(self) -> None:
        self.folder.chmod(0o755)  # munge looks for a folder that others cannot write to
        for name in ("state", "spool-node1", "spool-node2"):
            (self.folder / name).mkdir()
        self.key.write_bytes(os.urandom(128))
        self.key.chmod(0o400)
        if CONFIGURATION.exists() and not CONFIGURATION.read_text().startswith(MARK):
            pytest.skip(f"{CONFIGURATION} is of another Slurm")
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(MARK + self.configuration())
        os.environ.pop("SLURM_CONF", None)  # the empty one of all other tests
        munge = ["munged", "--foreground", "--force", f"--key-file={self.key}"]
        munge += [f"--socket={self.socket}", f"--pid-file={self.folder / 'munged.pid'}"]
        munge += [f"--log-file={self.folder / 'munged.log'}", f"--seed-file={self.folder / 'seed'}"]
        self.run("munged", munge)
        self.wait(self.socket.exists, "munge's socket")
        self.run("slurmctld", ["slurmctld", "-D"])
        for node in NODES:
            self.run(node, ["slurmd", "-D", "-N", node])
        self.wait(lambda: self.states() == {"idle"}, "two idle nodes")

    def run(self, name: str, command: list[str]) -> None:
        log = (self.folder / f"{name}.out").open("w")
        self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        for name in (*NODES, "slurmctld", "munged"):
            if name in self.daemons:
                self.daemons[name].terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        if CONFIGURATION.exists() and CONFIGURATION.read_text().startswith(MARK):
            CONFIGURATION.unlink()

    def wait(self, condition, what: str, seconds: float = 60):
        """What the condition returns, once that is true."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > end:
                logs = [log.read_text()[-1500:] for log in self.folder.glob("*.out")]
                pytest.fail(f"{what}: not within {seconds} s\n" + "\n".join(logs))
            time.sleep(0.2)
        return value

    def states(self) -> set[str]:
        """States of the nodes, as sinfo has them."""
        return set(ask("sinfo", "--noheader", "--Node", "--format=%t").split())

    def down(self, node: str) -> bool:
        """Whether the controller has given a node up; sinfo may call such a one completing."""
        state = re.search(r"State=(\S+)", ask("scontrol", "show", "node", node))
        return state is not None and "DOWN" in state[1]

    def jobs(self, *options: str) -> list[list[str]]:
        """Id, state, node and comment of the jobs that have not ended."""
        lines = ask("squeue", "--noheader", "--format=%i|%T|%N|%k", *options).splitlines()
        return [line.split("|") for line in lines]

    def started(self, *options: str) -> str:
        """Id of a job that starts from now on: one that runs already may be about to end."""
        running = ("--state=RUNNING", *options)
        before = {job[0] for job in self.jobs(*running)}
        return self.wait(
            lambda: [job[0] for job in self.jobs(*running) if job[0] not in before],
            "a job that starts",
            300,
        )[0]

    def ended(self, job: str) -> str:
        """The state that a job ended in."""
        return ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}").strip()

    def lose(self, node: str) -> None:
        """As when a machine loses power: neither slurmd nor any process of a job is left."""
        self.wait(lambda: self.steps(node), "processes of a job")
        self.daemons[node].kill()
        steps = self.steps(node)
        for lost in [steps, *[step.children(recursive=True) for step in steps]]:
            for process in lost:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def steps(self, node: str) -> list[psutil.Process]:
        """The processes that watch over the jobs of a node."""
        jobs = {job[0] for job in self.jobs(f"--nodelist={node}")}
        titles = (
            (process, re.match(r"slurmstepd: \[(\d+)\.", " ".join(process.info["cmdline"] or ())))
            for process in psutil.process_iter(["cmdline"])
        )
        return [process for process, title in titles if title and title[1] in jobs]

    def configuration(self) -> str:
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port=1700{number} "
            f"CPUs=2 RealMemory=8000"
            for number, node in enumerate(NODES, start=1)
        )
        return f"""ClusterName=thanos
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=17000
AuthType=auth/munge
AuthInfo=socket={self.socket}
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool-%n
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd-%n.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
SlurmdTimeout=20
ReturnToService=2
MinJobAge=600
MailProg=/bin/true
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=1
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def ask(*command: str) -> str:
    """Standard output of a command; empty where it fails."""
    return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    install()
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def start(tmp_path):
    """`start(name, profile, *arguments)` starts the demo's quick suite in a folder of its own."""
    started = []

    def begin(name: str, profile: str, *arguments: str, overrides: str) -> subprocess.Popen:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile")]
        command += ["--profile", str(PROJECT / "profiles" / profile), *arguments]
        command += ["--directory", str(folder), "--config", "quick=true", "threads=1"]
        command += [f"overrides={overrides}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        log = (folder / f"snakemake-{len(started)}.log").open("w")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        process.log, process.folder = Path(log.name), folder
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
    subprocess.run(["scancel", "--state=PENDING,RUNNING", "--user=root"], capture_output=True)
