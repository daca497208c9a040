# Reporting: results of a suite as one table, then tables and figures.
PUBLISHED = workflow.source_path("../results/reference/published_perplexity.csv")


localrules:
    collect,
    tables,
    figures,
    suite_report,


rule collect:
    input:
        lambda wildcards: run_results(wildcards.suite),
    output:
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
        windows=f"{SUITE}/windows.csv",
    log:
        f"{SUITE}/logs/collect.log",
    benchmark:
        f"{SUITE}/logs/collect.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        runs=lambda wildcards: run_folders(wildcards.suite),
    shell:
        "python -m thanos.stages.collect --output {output.results:q} --layers {output.layers:q}"
        " --windows {output.windows:q} {params.runs:q} > {log:q} 2>&1"


rule tables:
    input:
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
        windows=f"{SUITE}/windows.csv",
        published=PUBLISHED,
    output:
        report(
            directory(f"{SUITE}/tables"),
            patterns=["{name}.html"],
            caption="../report/table.rst",
            category="Tables",
        ),
    log:
        f"{SUITE}/logs/tables.log",
    benchmark:
        f"{SUITE}/logs/tables.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        axes=lambda wildcards: list(load_suite(wildcards.suite).axes),
        title=lambda wildcards: load_suite(wildcards.suite).title,
    shell:
        "python -m thanos.stages.tabulate {input.results:q} --layers {input.layers:q}"
        " --windows {input.windows:q} --published {input.published:q}"
        " --axes {params.axes:q} --title {params.title:q} --output {output:q} > {log:q} 2>&1"


rule figures:
    input:
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
    output:
        report(
            directory(f"{SUITE}/figures"),
            patterns=["{name}.svg"],
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        f"{SUITE}/logs/figures.log",
    benchmark:
        f"{SUITE}/logs/figures.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        axes=lambda wildcards: list(load_suite(wildcards.suite).axes),
    shell:
        "python -m thanos.stages.plot {input.results:q} --layers {input.layers:q}"
        " --axes {params.axes:q} --output {output:q} > {log:q} 2>&1"


rule suite_report:
    input:
        runs=lambda wildcards: run_results(wildcards.suite),
        results=f"{SUITE}/results.csv",
        tables=f"{SUITE}/tables",
        figures=f"{SUITE}/figures",
    output:
        f"{SUITE}/report.html",
    log:
        f"{SUITE}/logs/report.log",
    benchmark:
        f"{SUITE}/logs/report.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        runs=lambda wildcards: run_folders(wildcards.suite),
        title=lambda wildcards: load_suite(wildcards.suite).title,
    shell:
        "python -m thanos.stages.report --suite $(dirname {output:q}) --title {params.title:q}"
        " --output {output:q} {params.runs:q} > {log:q} 2>&1"
