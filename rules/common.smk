# Helpers shared by all rules: suites, runs and their paths.
#
# Options, given as `--config key=value`:
#   overrides="model=opt-125m method.damping=0.1"   in place of the suite's own values
#   quick=true                                       the suite's small variant, for tests
#   results=<folder>  threads=<per job>  keep_checkpoints=true
#   mirror=<folder>                                  in place of the hub; see rules/mirror.smk
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
from thanos.stages.mirror import wanted
from thanos.stages.planning import expected_memory_mb, pair_memory_mb
from thanos.testbed.continuations import TESTBED_TASK

RESULTS = config.get("results", "results")
QUICK = str(config.get("quick", "false")).lower() == "true"
OVERRIDES = shlex.split(str(config.get("overrides", "")))
MIRROR = config.get("mirror")
MIRRORED_SUITE = config.get("suite", "paper")
KEEP_CHECKPOINTS = str(config.get("keep_checkpoints", "false")).lower() == "true"
THREADS = int(config.get("threads", 1))
# For jobs that measure time: beside them there is room for none. A cluster gives them a node's share.
ALL_CORES = workflow.resource_settings.cores or THREADS

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


def pruning_memory(wildcards):
    """MiB that a pruning job takes by its memory plan; a guess for a model not downloaded yet."""
    try:
        return expected_memory_mb(run_of(wildcards).config) or 16000
    except UserError as error:
        raise WorkflowError(str(error)) from None


def wanted_from_hub(suite):
    """What `snakemake mirror` fetches for a suite."""
    return wanted(run.config for run in load_suite(suite).runs)


def efficiency_memory(wildcards):
    """MiB of the dense and the pruned model side by side; a guess for one not downloaded yet."""
    return pair_memory_mb(run_of(wildcards).config) or 32000


def as_json(resolved):
    """A resolved configuration as a parameter: the same text in every suite that has the run."""
    return json.dumps(yaml.safe_load(thanos_config.dumps(resolved)), sort_keys=True)


def run_folders(suite):
    return [f"{RESULTS}/runs/{run.identifier}" for run in load_suite(suite).runs]


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
