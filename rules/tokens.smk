# Token ids, drawn or cut once and replayed by every run that uses them.


localrules:
    calibration_config,
    evaluation_config,


rule calibration_config:
    output:
        f"{CALIBRATION}.yaml",
    log:
        f"{CALIBRATION}-logs/config.log",
    benchmark:
        f"{CALIBRATION}-logs/config.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        config=lambda wildcards: as_json(
            find_run(wildcards.calibration, "calibration").config.for_calibration()
        ),
    shell:
        "python -m thanos.stages configure --resolved {params.config:q} --output {output:q}"
        " > {log:q} 2>&1"


rule calibration:
    input:
        f"{CALIBRATION}.yaml",
    output:
        directory(CALIBRATION),
    log:
        f"{CALIBRATION}-logs/calibration.log",
    benchmark:
        f"{CALIBRATION}-logs/calibration.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        source=lambda wildcards: source_of(wildcards.calibration),
    shell:
        "python -m thanos.stages calibrate {input:q} --output {output:q} > {log:q} 2>&1"


use rule calibration_config as evaluation_config with:
    output:
        f"{WINDOWS}.yaml",
    log:
        f"{WINDOWS}-logs/config.log",
    benchmark:
        f"{WINDOWS}-logs/config.tsv"
    params:
        config=lambda wildcards: as_json(
            find_run(wildcards.evaluation, "evaluation").config.for_evaluation()
        ),


rule evaluation_windows:
    input:
        f"{WINDOWS}.yaml",
    output:
        directory(WINDOWS),
    log:
        f"{WINDOWS}-logs/windows.log",
    benchmark:
        f"{WINDOWS}-logs/windows.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        source=lambda wildcards: source_of(wildcards.evaluation),
    shell:
        "python -m thanos.stages.corpora {input:q} --output {output:q} > {log:q} 2>&1"
