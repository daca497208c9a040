# On one machine without a GPU, a process that has the libraries loaded runs the stages in forks:
# a small model is pruned faster than torch and transformers are loaded. Elsewhere every job starts
# by itself, as it does when it is repeated by hand.


onstart:
    RESULTS.resolve().mkdir(parents=True, exist_ok=True)
    if not workflow.local_exec:  # jobs elsewhere look their things up
        CATALOG.note(THINGS)
    if (
        workflow.local_exec
        and DeploymentMethod.CONDA
        not in workflow.deployment_settings.deployment_method
        and not visible_gpus()
    ):
        start_warm_process(CATALOG.loaded(), THREADS)
    tell_absent()
    if watch := watched():
        WATCHES.append(watch)
        watch.start()
