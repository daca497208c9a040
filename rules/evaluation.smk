# Evaluation of the pruned, or of the dense, model: perplexity, zero-shot accuracy, size; latency.


rule evaluate:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=checkpoint_of,
        windows=windows_of,
        continuations=continuations_of,
    output:
        perplexity=f"{RUN}/perplexity.json",
        zero_shot=f"{RUN}/zero_shot.json",
        size=f"{RUN}/size.json",
    log:
        f"{RUN}/logs/evaluate.log",
    benchmark:
        f"{RUN}/logs/evaluate.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    resources:
        mem_mb=evaluation_memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=gpus_of,
    params:
        options=evaluation_options,
        source=lambda wildcards: source_of(run_of(wildcards).evaluation),
    shell:
        "python -m thanos.stages evaluate {input.config:q} {params.options}"
        " --perplexity {output.perplexity:q} --zero-shot {output.zero_shot:q}"
        " --size {output.size:q} > {log:q} 2>&1"


# Only for runs whose suite asks with `evaluation.efficiency: true`.
rule efficiency:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=f"{RUN}/checkpoint",
    output:
        f"{RUN}/efficiency.json",
    log:
        f"{RUN}/logs/efficiency.log",
    benchmark:
        f"{RUN}/logs/efficiency.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: all_cores
    resources:
        mem_mb=efficiency_memory,
    shell:
        "python -m thanos.stages.efficiency {input.config:q} --checkpoint {input.checkpoint:q}"
        " --output {output:q} > {log:q} 2>&1"
