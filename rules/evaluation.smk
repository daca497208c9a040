# Evaluation: perplexity and zero-shot accuracy of the pruned, or of the dense, model.


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


rule evaluate:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=checkpoint_of,
        windows=windows_of,
        continuations=continuations_of,
    output:
        perplexity=f"{RUN}/perplexity.json",
        zero_shot=f"{RUN}/zero_shot.json",
    log:
        f"{RUN}/logs/evaluate.log",
    benchmark:
        f"{RUN}/logs/evaluate.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    params:
        options=evaluation_options,
    shell:
        "{PYTHON} -m thanos.stages.evaluate {input.config:q} {params.options}"
        " --perplexity {output.perplexity:q} --zero-shot {output.zero_shot:q} > {log:q} 2>&1"
