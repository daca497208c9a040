# Token ids, drawn or cut once and replayed by all that use them.


rule calibration:
    input:
        model=model_of(layout.CALIBRATION, "calibration"),
    output:
        directory(CALIBRATION),
    log:
        f"{CALIBRATION}-logs/calibration.log",
    benchmark:
        f"{CALIBRATION}-logs/calibration.tsv"
    conda:
        "../envs/thanos.yaml"
    resources:
        **needs(layout.CALIBRATION, "calibration"),
    params:
        **of(layout.CALIBRATION, "calibration"),
    shell:
        "python -m thanos.stages calibrate {params.spec:q} --place {params.place:q}"
        " --output {output:q} > {log:q} 2>&1"


rule evaluation_windows:
    input:
        model=model_of(layout.WINDOWS, "windows"),
    output:
        directory(WINDOWS),
    log:
        f"{WINDOWS}-logs/windows.log",
    benchmark:
        f"{WINDOWS}-logs/windows.tsv"
    conda:
        "../envs/thanos.yaml"
    resources:
        **needs(layout.WINDOWS, "windows"),
    params:
        **of(layout.WINDOWS, "windows"),
    shell:
        "python -m thanos.stages corpora {params.spec:q} --place {params.place:q}"
        " --output {output:q} > {log:q} 2>&1"
