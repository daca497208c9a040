# Pruned models: each is made once, for all evaluations of all suites.


rule prune:
    input:
        model=model_of(layout.PRUNED, "pruned"),
        calibration=calibration_of,
    output:
        checkpoint=(
            directory(f"{PRUNED}/{layout.CHECKPOINT}")
            if switch("keep_checkpoints", default=True)
            else temp(directory(f"{PRUNED}/{layout.CHECKPOINT}"))
        ),
        record=f"{PRUNED}/{layout.RECORD}",
    log:
        f"{PRUNED}/logs/prune.log",
    benchmark:
        f"{PRUNED}/logs/prune.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: share_of_cores(layout.PRUNED, "pruned")
    resources:
        **needs(layout.PRUNED, "pruned"),
    params:
        **of(layout.PRUNED, "pruned"),
    shell:
        "python -m thanos.stages prune {params.spec:q} --place {params.place:q}"
        " --calibration {input.calibration:q} --checkpoint {output.checkpoint:q}"
        " --record {output.record:q} > {log:q} 2>&1"
