# Pruning: one job per run, from calibration tokens to a checkpoint and a record of every layer.


# A second or less of work: on a cluster, not worth a job.
localrules:
    run_config,


rule run_config:
    output:
        f"{RUN}/config.yaml",
    log:
        f"{RUN}/logs/config.log",
    benchmark:
        f"{RUN}/logs/config.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        config=lambda wildcards: as_json(run_of(wildcards).config),
    shell:
        "python -m thanos.stages configure --resolved {params.config:q} --output {output:q}"
        " > {log:q} 2>&1"


rule prune:
    input:
        config=f"{RUN}/config.yaml",
        calibration=lambda wildcards: f"{RESULTS}/calibration/{run_of(wildcards).calibration}",
    output:
        checkpoint=(
            directory(f"{RUN}/checkpoint")
            if KEEP_CHECKPOINTS
            else temp(directory(f"{RUN}/checkpoint"))
        ),
        record=f"{RUN}/pruning.json",
    log:
        f"{RUN}/logs/prune.log",
    benchmark:
        f"{RUN}/logs/prune.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    resources:
        mem_mb=pruning_memory,
        runtime=lambda wildcards, attempt: 240 * attempt,
        gpu=gpus_of,
    params:
        source=lambda wildcards: source_of(run_of(wildcards).evaluation),
    shell:
        "python -m thanos.stages prune {input.config:q} --calibration {input.calibration:q}"
        " --checkpoint {output.checkpoint:q} --record {output.record:q} > {log:q} 2>&1"
