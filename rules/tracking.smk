# Tracking: finished results to Weights & Biases; its failures never fail a suite.


# A cluster's nodes may have no network.
localrules:
    track,


rule track:
    input:
        runs=lambda wildcards: run_results(wildcards.suite),
        results=f"{SUITE}/results.csv",
        tables=f"{SUITE}/tables",
        figures=f"{SUITE}/figures",
        report=f"{SUITE}/report.html",
    output:
        f"{SUITE}/tracking.json",
    log:
        f"{SUITE}/logs/track.log",
    benchmark:
        f"{SUITE}/logs/track.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        runs=lambda wildcards: run_folders(wildcards.suite),
        mode=lambda wildcards: load_suite(wildcards.suite).runs[0].config.tracking.mode,
        project=lambda wildcards: load_suite(wildcards.suite)
        .runs[0]
        .config.tracking.project,
        directory=f"{RESULTS}/tracking",
    shell:
        "python -m thanos.stages.track --suite $(dirname {output:q}) --output {output:q}"
        " --mode {params.mode} --project {params.project:q} --directory {params.directory:q}"
        " {params.runs:q} > {log:q} 2>&1"
