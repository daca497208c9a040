# Tracking: finished results to Weights & Biases; its failures never fail a suite.


# A cluster's nodes may have no network.
localrules:
    track,


rule track:
    input:
        runs=f"{SUITE}/{layout.RUNS}",
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
        mode=lambda wildcards: suite(wildcards.suite).runs[0].tracking.mode,
        project=lambda wildcards: suite(wildcards.suite).runs[0].tracking.project,
        directory=lambda wildcards, output: str(RESULTS / "tracking"),
    shell:
        'python -m thanos.stages.track --suite "$(dirname {output:q})" --output {output:q}'
        " --mode {params.mode} --project {params.project:q} --directory {params.directory:q}"
        " > {log:q} 2>&1"
