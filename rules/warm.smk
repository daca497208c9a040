# On one machine without a GPU, a process that has the libraries loaded runs the stages in forks:
# a small model is pruned faster than torch and transformers are loaded. Elsewhere every job starts
# by itself, as it does when it is repeated by hand.
import atexit
import os
import subprocess
import tempfile

from thanos.stages.gpu import visible_gpus

STAGES = [
    f"thanos.stages.{stage}"
    for stage in ("configure", "calibrate", "prune", "evaluate")
]
MODELS = [
    "transformers.models.llama.modeling_llama",
    "transformers.models.opt.modeling_opt",
]
ZERO_SHOT = ["lm_eval.evaluator", "lm_eval.models.huggingface"]


def start_warm_process():
    """Start it in the background; jobs that come before it is ready don't wait for it."""
    with_tasks = any(
        run.config.evaluation.tasks for name in LOADED for run in load_suite(name).runs
    )
    modules = [*STAGES, *MODELS, *(ZERO_SHOT if with_tasks else [])]
    folder = tempfile.TemporaryDirectory(prefix="thanos-")
    address = f"{folder.name}/stages"
    process = subprocess.Popen(
        [sys.executable, "-m", "thanos.stages.warm", address, *modules],
        stdin=subprocess.PIPE,  # it ends when this is closed, however Snakemake ends
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": workflow.basedir,
            "OMP_NUM_THREADS": str(THREADS),
        },
    )
    os.environ.update(THANOS_WARM=address)

    def end():
        process.communicate()
        folder.cleanup()

    atexit.register(end)


onstart:
    if (
        workflow.local_exec
        and DeploymentMethod.CONDA
        not in workflow.deployment_settings.deployment_method
        and not visible_gpus()
    ):
        start_warm_process()
