# Models that are stored in GGUF files, of the package index say, as safetensors: each made once for
# all suites.


# A cluster's nodes may have no network.
localrules:
    model,


rule model:
    output:
        directory(MODEL),
    log:
        f"{MODEL}-logs/model.log",
    benchmark:
        f"{MODEL}-logs/model.tsv"
    priority: 100
    conda:
        "../envs/thanos.yaml"
    params:
        **of(layout.MODELS, "model"),
    shell:
        "python -m thanos.stages dequantize {params.spec:q} --place {params.place:q}"
        " --output {output:q} > {log:q} 2>&1"
