# Everything that a suite reads from the hub, in one folder, for machines without network:
# `snakemake mirror --config suite=paper mirror=<folder>` where there is one, then any target with
# `--config mirror=<folder>` where there is none.


rule mirror:
    output:
        f"{MIRROR or 'mirror'}/{MIRRORED_SUITE}.json",
    log:
        f"{MIRROR or 'mirror'}/logs/{MIRRORED_SUITE}.log",
    benchmark:
        f"{MIRROR or 'mirror'}/logs/{MIRRORED_SUITE}.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        wanted=lambda _: json.dumps(wanted_from_hub(MIRRORED_SUITE)),
    shell:
        "python -m thanos.stages.mirror --wanted {params.wanted:q} --record {output:q}"
        " > {log:q} 2>&1"
