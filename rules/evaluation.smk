# Evaluation of the pruned, or of the dense, model: perplexity, zero-shot accuracy, size; latency.


# What is measured lies in a file of its own as soon as it is known, whatever becomes of the rest.
rule evaluate:
    input:
        model=model_of(layout.EVALUATIONS, "evaluation"),
        checkpoint=checkpoint_of,
        windows=windows_of,
        continuations=continuations_of,
    output:
        f"{EVALUATION}/{layout.EVALUATION}",
    log:
        f"{EVALUATION}/logs/evaluate.log",
    benchmark:
        f"{EVALUATION}/logs/evaluate.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: share_of_cores(layout.EVALUATIONS, "evaluation")
    resources:
        **needs(layout.EVALUATIONS, "evaluation"),
    params:
        **of(layout.EVALUATIONS, "evaluation"),
        parts=lambda wildcards, output: str(RESULTS / layout.MEASUREMENTS),
    shell:
        "python -m thanos.stages evaluate {params.spec:q} --place {params.place:q}"
        " --checkpoint {input.checkpoint:q} --windows {input.windows:q} --items {input.continuations:q}"
        " --memory {resources.mem_mb} --parts {params.parts:q} --output {output:q} > {log:q} 2>&1"


# Only for runs whose suite asks with `evaluation.efficiency: true`. A process of its own, with all
# threads.
rule efficiency:
    input:
        model=model_of(layout.LATENCIES, "latency"),
        checkpoint=timed_checkpoint_of,
    output:
        f"{LATENCY}/{layout.LATENCY}",
    log:
        f"{LATENCY}/logs/efficiency.log",
    benchmark:
        f"{LATENCY}/logs/efficiency.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: all_cores
    resources:
        **needs(layout.LATENCIES, "latency"),
    params:
        **of(layout.LATENCIES, "latency"),
    shell:
        "python -m thanos.stages.efficiency {params.spec:q} --place {params.place:q}"
        " --checkpoint {input.checkpoint:q} --output {output:q} > {log:q} 2>&1"
