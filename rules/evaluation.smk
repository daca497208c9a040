# Evaluation: perplexity and zero-shot accuracy of the pruned, or of the dense, model.


def checkpoint_of(wildcards):
    """The pruned checkpoint; nothing for a dense run, which evaluates the model itself."""
    return (
        []
        if run_of(wildcards).config.dense
        else f"{RUN}/checkpoint".format(**wildcards)
    )


def checkpoint_option(_, input):
    return (
        f"--checkpoint {shlex.quote(input.checkpoint)}"
        if input.get("checkpoint")
        else ""
    )


rule perplexity:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=checkpoint_of,
        windows=lambda wildcards: f"{RESULTS}/evaluation/{run_of(wildcards).evaluation}",
    output:
        f"{RUN}/perplexity.json",
    log:
        f"{RUN}/logs/perplexity.log",
    benchmark:
        f"{RUN}/logs/perplexity.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    params:
        checkpoint=checkpoint_option,
    shell:
        "{PYTHON} -m thanos.stages.perplexity {input.config:q} {params.checkpoint}"
        " --windows {input.windows:q}"
        " --output {output:q} > {log:q} 2>&1"


rule zero_shot:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=checkpoint_of,
        continuations=ITEMS,
    output:
        f"{RUN}/zero_shot.json",
    log:
        f"{RUN}/logs/zero_shot.log",
    benchmark:
        f"{RUN}/logs/zero_shot.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    params:
        checkpoint=checkpoint_option,
    shell:
        "{PYTHON} -m thanos.stages.zero_shot {input.config:q} {params.checkpoint}"
        " --items {input.continuations:q} --output {output:q} > {log:q} 2>&1"
