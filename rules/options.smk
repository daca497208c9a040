# What runs are told: options, and what follows from them for all rules. Given as `--config key=value`:
#   overrides="model=opt-125m method.damping=0.1"   in place of the suite's own values; or a list
#   config_dir=<folder>                              of your own, with models, methods, suites
#   quick=true                                       the suite's small variant, for tests
#   real=true                                        its variant of a trained language model
#   mirror=<folder>                                  in place of the hub; see rules/mirror.smk
#   keep_checkpoints=false                           pruned models go when all have evaluated them
#   show=false                                       no table at the end
#   results=<folder>  threads=<per job>
#   gpus=<per job>  node_mb=<memory that a job may take>, both of a cluster
import contextlib
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

sys.path.insert(0, workflow.basedir)  # the project itself, whatever is installed

from thanos import layout
from thanos.config.grammar import written
from thanos.errors import UserError
from thanos.paths import PROJECT, SOURCE
from thanos.workflow.catalog import Catalog
from thanos.workflow.folders import older_layout, without_braces
from thanos.workflow.gpus import name_locks, visible_gpus
from thanos.workflow.machine import total_memory
from thanos.workflow.options import decoded, overrides_of, texts_of
from thanos.workflow.resources import Machine
from thanos.workflow.suite_files import SIZES, folder_of, suite_files, sweeps_of


def switch(option, default=False):
    """Whether an option is on; the command line gives texts and booleans."""
    return str(config.get(option, default)).lower() == "true"


def number(option, default, least):
    """A whole number that an option gives."""
    given = str(config.get(option, default))
    if not given.isdecimal() or int(given) < least:
        raise WorkflowError(
            f"--config {option}={given}: expected a whole number, at least {least}"
        )
    return int(given)


@contextlib.contextmanager
def told():
    """Say what is wrong in Snakemake's own way: in one line."""
    try:
        yield
    except UserError as error:
        raise WorkflowError(str(error)) from None


RESULTS = without_braces(Path(decoded(config.get("results", "results"))))
SIZE = "".join(filter(switch, SIZES))
if SIZE not in ("", *SIZES):
    raise WorkflowError(f"--config: give one of {', '.join(SIZES)}")
MIRROR = decoded(config.get("mirror"))
with told():
    OVERRIDES = overrides_of(config.get("overrides"), sys.argv)
FOLDERS = [*texts_of(config.get("config_dir")), *sweeps_of(RESULTS)]
COMPOSED = OVERRIDES if MIRROR is None else [*OVERRIDES, written("mirror", MIRROR)]
CHOSEN = config.get("suite", "demo")  # of the targets that look at one
THREADS = number("threads", 1, least=1)
GPUS = number("gpus", 0, least=0)
# Where jobs run. What a cluster's nodes have is not known here; on one machine its memory limits
# which jobs run beside each other.
if workflow.local_exec:
    MACHINE = Machine(total_memory(), bool(visible_gpus()), 0)
    if "mem_mb" not in workflow.global_resources:
        workflow.register_resource("mem_mb", MACHINE.memory // 2**20)
else:
    MACHINE = Machine(number("node_mb", 64000, least=1) * 2**20, GPUS > 0, GPUS)

THINGS = RESULTS / layout.THINGS
CATALOG = Catalog(
    COMPOSED,
    SIZE,
    tuple(FOLDERS),
    models_dir=RESULTS / layout.MODELS,
    noted=None if workflow.is_main_process else THINGS,
)
SUITES = sorted(suite_files(FOLDERS))
SUFFIX = folder_of("", SIZE)

# On one machine every job takes a GPU of its own, where there are any.
name_locks()

# Jobs run this very source, and `python`: in a conda environment its own, otherwise the one that
# runs Snakemake.
_source = f"export PYTHONPATH={shlex.quote(str(SOURCE))}${{PYTHONPATH:+:$PYTHONPATH}}; "
_python = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    _python = ""
    if PROJECT != SOURCE:  # its packages would come along into the environment
        raise WorkflowError("--sdm conda needs a checkout of the project, not a wheel")
shell.prefix(
    f"set -euo pipefail; {_source}{_python}".replace("{", "{{").replace("}", "}}")
)

if workflow.is_main_process:
    for _folder in older_layout(RESULTS):
        print(
            f"{_folder} is of an older layout and not used; delete it", file=sys.stderr
        )
