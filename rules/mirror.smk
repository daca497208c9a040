# Everything that a suite reads from the hub, in one folder, for machines without network:
# `snakemake mirror --config suite=paper mirror=<folder>` where there is one, then any target with
# `--config mirror=<folder>` where there is none.
MIRRORED_SUITE = config.get("suite", "paper")
MIRROR_FOLDER = without_braces(Path(MIRROR or "mirror"))


rule mirror:
    output:
        f"{MIRROR_FOLDER}/{MIRRORED_SUITE}.json",
    log:
        f"{MIRROR_FOLDER}/logs/{MIRRORED_SUITE}.log",
    benchmark:
        f"{MIRROR_FOLDER}/logs/{MIRRORED_SUITE}.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        wanted=lambda _: json.dumps(wanted(suite(MIRRORED_SUITE).runs)),
    shell:
        "python -m thanos.stages.mirror --wanted {params.wanted:q} --record {output:q}"
        " > {log:q} 2>&1"
