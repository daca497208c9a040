# What all rules share: where things lie, and what is asked about them; thanos/workflow answers.
import atexit
import json
import time

from thanos.identity.fingerprints import stage_fingerprint
from thanos.identity.spec import ID
from thanos.testbed.continuations import TESTBED_TASK
from thanos.workflow.catalog import things_of
from thanos.workflow.estimate import Estimate
from thanos.workflow.failures import failures
from thanos.workflow.hub import wanted
from thanos.workflow.needs import needs_of, threads_of
from thanos.workflow.speed import machine_speed
from thanos.workflow.targets import asked_targets, check_targets
from thanos.workflow.warm import start_warm_process
from thanos.workflow.watch import Watch

MODEL = f"{RESULTS}/{layout.MODELS}/{{model}}"
CALIBRATION = f"{RESULTS}/{layout.CALIBRATION}/{{calibration}}"
WINDOWS = f"{RESULTS}/{layout.WINDOWS}/{{windows}}"
RECOVERED = f"{RESULTS}/{layout.RECOVERED}/{{recovered}}"
PRUNED = f"{RESULTS}/{layout.PRUNED}/{{pruned}}"
EVALUATION = f"{RESULTS}/{layout.EVALUATIONS}/{{evaluation}}"
LATENCY = f"{RESULTS}/{layout.LATENCIES}/{{latency}}"
ITEMS = f"{RESULTS}/{layout.CONTINUATIONS}"
SUITE = f"{RESULTS}/{layout.SUITES}/{{suite}}"

ASKED = []  # folders of the suites that are to be made
STARTED = time.time()
WATCHES = []  # at most one: of the time that they take


wildcard_constraints:
    model=ID,
    calibration=ID,
    windows=ID,
    pruned=ID,
    recovered=ID,
    evaluation=ID,
    latency=ID,
    suite="|".join(name + SUFFIX for name in SUITES),


def thing(kind, name):
    """What lies in a folder: its spec, its place, its fingerprint."""
    with told():
        return CATALOG.thing(kind, name)


def suite(name):
    """The suite of a target or of a folder under results/suites."""
    with told():
        return CATALOG.suite(name.removesuffix(SUFFIX))


def of(kind, wildcard):
    """Parameters of the rule that makes a kind of thing.

    The spec is in the folder's name; with the place it goes with the command alone: a function of
    the output is no reason for Snakemake to make anything again. A fingerprint is one.
    """

    def found(wildcards):
        return thing(kind, wildcards[wildcard])

    return {
        "fingerprint": lambda wildcards: found(wildcards).fingerprint.parameters(),
        "spec": lambda wildcards, output: json.dumps(found(wildcards).spec.to_json()),
        "place": lambda wildcards, output: json.dumps(found(wildcards).place.to_json()),
    }


def code(stage):
    """The source of a stage that reads results alone, as a parameter."""
    return lambda wildcards: stage_fingerprint(stage).parameters()


def needs(kind, wildcard):
    """Resources of the rule that makes a kind of thing, each more with every attempt.

    Memory by the plan of its model, GPUs that a cluster is asked for; on one machine see
    `thanos.device`.
    """

    def asked(name):
        def amount(wildcards, attempt):
            found = thing(kind, wildcards[wildcard])
            with told():
                needed = needs_of(found.spec, found.place, MACHINE, attempt)
            return getattr(needed, name)

        return amount

    return {name: asked(name) for name in ("mem_mb", "runtime", "gpu")}


def share_of_cores(kind, wildcard):
    """Threads of a job: what is asked for, or its share of this machine's cores.

    As many jobs share them as are of the kind and fit into the memory together.
    """

    def threads(wildcards):
        cores = workflow.resource_settings.cores
        if "threads" in config or not workflow.local_exec or not cores:
            return THREADS
        found = thing(kind, wildcards[wildcard])
        with told():
            needed = needs_of(found.spec, found.place, MACHINE)
        return threads_of(needed, MACHINE, cores, CATALOG.count(kind))

    return threads


def all_cores(_):
    """All of this machine, so that nothing runs beside a job that measures time.

    On a cluster a job has its share of a node to itself.
    """
    cores = workflow.resource_settings.cores
    return cores if cores and workflow.local_exec else THREADS


def model_of(kind, wildcard):
    """The model that something is of, where a job makes it; others are there, or fetched."""

    def folder(wildcards):
        model = thing(kind, wildcards[wildcard]).base
        return f"{RESULTS}/{layout.MODELS}/{model.id}" if model.gguf else []

    return folder


def calibration_of(wildcards):
    tokens = thing(layout.PRUNED, wildcards.pruned).spec.calibration
    return f"{RESULTS}/{layout.CALIBRATION}/{tokens.id}" if tokens else []


def checkpoint_in(kind, spec):
    return f"{RESULTS}/{kind}/{spec.id}/{layout.CHECKPOINT}" if spec else []


def checkpoint_of(wildcards):
    """The pruned checkpoint, or what was trained; nothing for a dense model, evaluated itself."""
    spec = thing(layout.EVALUATIONS, wildcards.evaluation).spec
    if spec.recovery:
        return checkpoint_in(layout.RECOVERED, spec.recovery)
    return checkpoint_in(layout.PRUNED, spec.pruning)


def checkpoint_to_train(wildcards):
    """The pruned checkpoint; nothing for a dense model, which is trained itself."""
    pruning = thing(layout.RECOVERED, wildcards.recovered).spec.pruning
    return checkpoint_in(layout.PRUNED, pruning)


def text_to_train_on(wildcards):
    text = thing(layout.RECOVERED, wildcards.recovered).spec.text
    return f"{RESULTS}/{layout.CALIBRATION}/{text.id}"


def windows_of(wildcards):
    windows = thing(layout.EVALUATIONS, wildcards.evaluation).spec.windows
    return [f"{RESULTS}/{layout.WINDOWS}/{cut.id}" for cut in windows]


def continuations_of(wildcards):
    tasks = thing(layout.EVALUATIONS, wildcards.evaluation).spec.tasks
    return ITEMS if TESTBED_TASK in tasks else []


def timed_checkpoint_of(wildcards):
    pruning = thing(layout.LATENCIES, wildcards.latency).spec.pruning
    return checkpoint_in(layout.PRUNED, pruning)


def watched():
    """What says how long the suites take that are asked for; nothing where that is unknown.

    The speed of GPUs and of other machines is.
    """
    if not ASKED or not workflow.local_exec or visible_gpus():
        return None
    speed = machine_speed(THREADS)
    if speed is None:
        return None
    suites = [suite(Path(folder).name) for folder in ASKED]
    runs = [run for asked in suites for run in asked.runs]
    estimate = Estimate(
        things_of(runs),
        RESULTS,
        cores=all_cores(None),
        threads=THREADS,
        speed=speed,
        suites=len(suites),
    )
    return Watch(estimate)


def tell_absent():
    """Say which optional corpora and tasks the suites that are asked for go without."""
    runs = [run for folder in ASKED for run in suite(Path(folder).name).runs]
    if names := dict.fromkeys(name for run in runs for name in run.absent):
        print(
            f"not measured, for they cannot be had here: {', '.join(names)}; "
            "set mirror to a folder that has them",
            file=sys.stderr,
        )


def run_results(name):
    """Every file that the runs of a suite leave, and the list of them."""
    files = [f"{RESULTS}/{layout.SUITES}/{name}/{layout.RUNS}"]
    for run in suite(name).runs:
        files.append(
            f"{RESULTS}/{layout.EVALUATIONS}/{run.evaluation.id}/{layout.EVALUATION}"
        )
        if run.pruning is not None:
            files.append(f"{RESULTS}/{layout.PRUNED}/{run.pruning.id}/{layout.RECORD}")
        if run.recovery is not None:
            files.append(
                f"{RESULTS}/{layout.RECOVERED}/{run.recovery.id}/{layout.RECOVERY}"
            )
        if run.latency is not None:
            files.append(
                f"{RESULTS}/{layout.LATENCIES}/{run.latency.id}/{layout.LATENCY}"
            )
    return list(dict.fromkeys(files))


def suite_products(name):
    """What a suite's target asks for; a function, so that only suites asked for are composed."""

    def products(_):
        folder = RESULTS / layout.SUITES / f"{name}{SUFFIX}"
        ASKED.append(str(folder))
        names = ["results.csv", "tables", "figures", "report.html"]
        if suite(name).runs[0].tracking.mode != "disabled":
            names.append("tracking.json")
        return [str(folder / made) for made in names]

    return products


# A dry run has no start: at its end it says how long the suites would take.
def announce():
    if workflow.dryrun:
        tell_absent()
        if watch := watched():
            watch.announce()


if workflow.is_main_process:
    atexit.register(announce)
