# Helpers shared by all rules: suites, runs and their paths.
#
# Options, given as `--config key=value`:
#   overrides="model=opt-125m method.damping=0.1"   in place of the suite's own values
#   quick=true                                       the suite's small variant, for tests
#   mirror=<folder>                                  in place of the hub; see rules/mirror.smk
#   show=false                                       no table at the end
#   results=<folder>  threads=<per job>  gpus=<per job, on a cluster>  keep_checkpoints=true
import functools
import json
import shlex
import sys
import time
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

sys.path.insert(0, workflow.basedir)  # the project itself, whatever is installed

from thanos import config as thanos_config
from thanos import suites
from thanos.errors import UserError
from thanos.provenance import source_hash
from thanos.stages.mirror import wanted
from thanos.stages.planning import evaluation_memory_mb, expected_memory_mb
from thanos.stages.gpu import name_locks
from thanos.testbed.continuations import TESTBED_TASK


def switch(option, default=False):
    """Whether an option is on; the command line gives texts and booleans."""
    return str(config.get(option, default)).lower() == "true"


RESULTS = config.get("results", "results")
QUICK = switch("quick")
OVERRIDES = shlex.split(str(config.get("overrides", "")))
MIRROR = config.get("mirror")
MIRRORED_SUITE = config.get("suite", "paper")
KEEP_CHECKPOINTS = switch("keep_checkpoints")
SHOW = switch("show", default=True)
THREADS = int(config.get("threads", 1))
GPUS = int(config.get("gpus", 0))
SNAKEMAKE_MB = 400  # of the two Snakemake processes inside a cluster's job

SUITES = suites.suite_names()
LOADED = []
ASKED = []  # folders of the suites that are to be made
STARTED = time.time()
SUFFIX = "-quick" if QUICK else ""
RUN = f"{RESULTS}/runs/{{model}}/{{pattern}}/{{run}}"
CALIBRATION = f"{RESULTS}/calibration/{{calibration}}"
WINDOWS = f"{RESULTS}/evaluation/{{evaluation}}"
SUITE = f"{RESULTS}/suites/{{suite}}"
ITEMS = f"{RESULTS}/testbed/continuations"
IDENTIFIER = rf"{thanos_config.NAME}-[0-9a-f]{{8}}"

# On one machine every job takes a GPU of its own, where there are any.
name_locks()

# Rules call `python`: in a conda environment its own, otherwise the one that runs Snakemake.
if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
    shell.prefix(
        f"set -euo pipefail; export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    )


wildcard_constraints:
    model=thanos_config.NAME,
    pattern=r"dense|unstructured-[0-9.]+|structured-[0-9.]+|[0-9]+-[0-9]+",
    run=IDENTIFIER,
    calibration=IDENTIFIER,
    evaluation=IDENTIFIER,
    suite="|".join(name + SUFFIX for name in SUITES),


@functools.cache
def load_suite(name):
    """The suite of a target or of a folder under results/suites."""
    try:
        places = [] if MIRROR is None else [f"mirror={MIRROR}"]
        loaded = suites.load_suite(
            name.removesuffix(SUFFIX), [*OVERRIDES, *places], QUICK
        )
        LOADED.append(name)
        return loaded
    except UserError as error:
        raise WorkflowError(str(error)) from None


@functools.cache
def find_run(folder, attribute="identifier"):
    """A run by its folder, or by the folder of the tokens it uses, from whichever suite has it."""
    for name in [*LOADED, *SUITES]:
        try:
            runs = load_suite(name).runs
        except WorkflowError:  # overrides need not fit a suite that was not asked for
            continue
        for run in runs:
            if getattr(run, attribute) == folder:
                return run
    raise WorkflowError(
        f"no suite has {attribute} {folder}; was the configuration changed?"
    )


def run_of(wildcards):
    return find_run(f"{wildcards.model}/{wildcards.pattern}/{wildcards.run}")


def checkpoint_of(wildcards):
    """The pruned checkpoint; nothing for a dense run, which evaluates the model itself."""
    return (
        []
        if run_of(wildcards).config.dense
        else f"{RUN}/checkpoint".format(**wildcards)
    )


def windows_of(wildcards):
    run = run_of(wildcards)
    return f"{RESULTS}/evaluation/{run.evaluation}" if run.evaluation else []


def continuations_of(wildcards):
    return ITEMS if TESTBED_TASK in run_of(wildcards).config.evaluation.tasks else []


def evaluation_options(_, input):
    """The options of the inputs that this run has."""
    given = {"checkpoint": "checkpoint", "windows": "windows", "continuations": "items"}
    return " ".join(
        f"--{option} {shlex.quote(input[name])}"
        for name, option in given.items()
        if input[name]
    )


def pruning_memory(wildcards, attempt):
    """MiB that a pruning job takes by its memory plan; a guess for a model not downloaded yet."""
    try:
        planned = expected_memory_mb(run_of(wildcards).config) or 16000
    except UserError as error:
        raise WorkflowError(str(error)) from None
    return attempt * (SNAKEMAKE_MB + planned)


def evaluation_memory(wildcards, attempt):
    """MiB that evaluating takes: tasks load the whole model, perplexity goes by blocks."""
    planned = evaluation_memory_mb(run_of(wildcards).config) or 16000
    return attempt * (SNAKEMAKE_MB + planned)


def gpus_of(wildcards):
    """GPUs that a job asks a cluster for; on one machine see `thanos.stages.device`."""
    return 0 if run_of(wildcards).config.device == "cpu" else GPUS


def source_of(tokens):
    """The source's hash where the tokens are the regression suite's: today's source must make it."""
    return source_hash() if (tokens or "").startswith("regression-") else ""


def wanted_from_hub(suite):
    """What `snakemake mirror` fetches for a suite."""
    return wanted(run.config for run in load_suite(suite).runs)


def all_cores(_):
    """All of this machine, so that nothing runs beside a job that measures time.

    On a cluster a job has its share of a node to itself.
    """
    cores = workflow.resource_settings.cores
    return cores if cores and workflow.local_exec else THREADS


def efficiency_memory(wildcards, attempt):
    """MiB of the dense and the pruned model side by side; a guess for one not downloaded yet."""
    planned = evaluation_memory_mb(run_of(wildcards).config, models=2) or 32000
    return attempt * (SNAKEMAKE_MB + planned)


def as_json(resolved):
    """A resolved configuration as a parameter: the same text in every suite that has the run."""
    return json.dumps(yaml.safe_load(thanos_config.dumps(resolved)), sort_keys=True)


def run_folders(suite):
    return [f"{RESULTS}/runs/{run.identifier}" for run in load_suite(suite).runs]


def tokens_of_suite(name):
    """Folders of the token ids and items that the runs of a suite use."""
    runs = load_suite(name).runs
    folders = {f"calibration/{run.calibration}" for run in runs if run.calibration}
    folders |= {f"evaluation/{run.evaluation}" for run in runs if run.evaluation}
    items = any(TESTBED_TASK in run.config.evaluation.tasks for run in runs)
    return [f"{RESULTS}/{folder}" for folder in sorted(folders)] + [ITEMS] * items


def failures():
    """The last line of every log of a job that failed since the workflow started."""
    for log in sorted(Path(RESULTS).glob("**/*logs/*.log")):
        lines = log.read_text(errors="replace").splitlines() or ["(empty log)"]
        failed = lines[-1].startswith("error:") or any(
            "Traceback" in line for line in lines
        )
        if failed and log.stat().st_mtime >= STARTED:
            yield f"{log}: {lines[-1]}"


def run_results(suite):
    """Every file that the runs of a suite leave."""
    files = []
    for run in load_suite(suite).runs:
        names = ["config.yaml", "perplexity.json", "zero_shot.json", "size.json"]
        names += [] if run.config.dense else ["pruning.json"]
        if run.config.evaluation.efficiency and not run.config.dense:
            names.append("efficiency.json")
        files += [f"{RESULTS}/runs/{run.identifier}/{name}" for name in names]
    return files


def suite_products(name):
    """What a suite's target asks for; a function, so that only suites asked for are composed."""

    def products(_):
        folder = f"{RESULTS}/suites/{name}{SUFFIX}"
        ASKED.append(folder)
        names = ("results.csv", "tables", "figures", "report.html")
        made = [f"{folder}/{made}" for made in names]
        if load_suite(name).runs[0].config.tracking.mode != "disabled":
            made.append(f"{folder}/tracking.json")
        return made

    return products
