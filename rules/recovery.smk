# Models that are trained after they were pruned, every zero kept: only for runs whose suite asks with
# `recovery`. A job that was killed goes on from its last state when it is started again.


rule recover:
    input:
        model=model_of(layout.RECOVERED, "recovered"),
        checkpoint=checkpoint_to_train,
        text=text_to_train_on,
    output:
        checkpoint=(
            directory(f"{RECOVERED}/{layout.CHECKPOINT}")
            if switch("keep_checkpoints", default=True)
            else temp(directory(f"{RECOVERED}/{layout.CHECKPOINT}"))
        ),
        record=f"{RECOVERED}/{layout.RECOVERY}",
    log:
        f"{RECOVERED}/logs/recover.log",
    benchmark:
        f"{RECOVERED}/logs/recover.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: share_of_cores(layout.RECOVERED, "recovered")
    resources:
        **needs(layout.RECOVERED, "recovered"),
    params:
        **of(layout.RECOVERED, "recovered"),
    shell:
        "python -m thanos.stages recover {params.spec:q} --place {params.place:q}"
        " --checkpoint {input.checkpoint:q} --text {input.text:q}"
        " --output {output.checkpoint:q} --record {output.record:q} > {log:q} 2>&1"
