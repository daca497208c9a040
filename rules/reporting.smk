# Reporting: results of a suite as one table, then tables and figures.
PUBLISHED = workflow.source_path("../results/reference/published_perplexity.csv")
ACCURACIES = workflow.source_path("../results/reference/published_accuracy.csv")


localrules:
    list_runs,
    collect,
    tables,
    figures,
    suite_report,


# First, so that what a suite needs is known to be nobody's orphan.
rule list_runs:
    output:
        f"{SUITE}/{layout.RUNS}",
    log:
        f"{SUITE}/logs/list_runs.log",
    benchmark:
        f"{SUITE}/logs/list_runs.tsv"
    priority: 100
    conda:
        "../envs/thanos.yaml"
    params:
        runs=lambda wildcards: CATALOG.digest(wildcards.suite.removesuffix(SUFFIX)),
        name=lambda wildcards, output: wildcards.suite.removesuffix(SUFFIX),
        size=lambda wildcards, output: f"--{SIZE}" if SIZE else "",
        overrides=lambda wildcards, output: COMPOSED,
        folders=lambda wildcards, output: FOLDERS,
    shell:
        "python -m thanos.stages.list_runs {params.name} {params.size}"
        " --overrides {params.overrides:q} --config-dir {params.folders:q} --output {output:q} > {log:q} 2>&1"


rule collect:
    input:
        lambda wildcards: run_results(wildcards.suite),
        runs=f"{SUITE}/{layout.RUNS}",
    output:
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
        windows=f"{SUITE}/windows.csv",
        origin=f"{SUITE}/origin.json",
    log:
        f"{SUITE}/logs/collect.log",
    benchmark:
        f"{SUITE}/logs/collect.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        source=code("collect"),
    shell:
        "python -m thanos.stages.collect {input.runs:q} --output {output.results:q}"
        " --layers {output.layers:q} --windows {output.windows:q} --origin {output.origin:q}"
        " > {log:q} 2>&1"


rule tables:
    input:
        runs=f"{SUITE}/{layout.RUNS}",
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
        windows=f"{SUITE}/windows.csv",
        published=PUBLISHED,
        accuracies=ACCURACIES,
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
        source=code("tabulate"),
    shell:
        "python -m thanos.stages.tabulate {input.results:q} --runs {input.runs:q}"
        " --layers {input.layers:q} --windows {input.windows:q} --published {input.published:q}"
        " --accuracies {input.accuracies:q}"
        " --output {output:q} > {log:q} 2>&1"


rule figures:
    input:
        runs=f"{SUITE}/{layout.RUNS}",
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
        source=code("plot"),
    shell:
        "python -m thanos.stages.plot {input.results:q} --runs {input.runs:q}"
        " --layers {input.layers:q} --output {output:q} > {log:q} 2>&1"


rule suite_report:
    input:
        runs=f"{SUITE}/{layout.RUNS}",
        results=f"{SUITE}/results.csv",
        layers=f"{SUITE}/layers.csv",
        windows=f"{SUITE}/windows.csv",
        origin=f"{SUITE}/origin.json",
        published=PUBLISHED,
        accuracies=ACCURACIES,
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
        source=code("report"),
    shell:
        'python -m thanos.stages.report --suite "$(dirname {output:q})" --origin {input.origin:q}'
        " --published {input.published:q} --accuracies {input.accuracies:q}"
        " --output {output:q} > {log:q} 2>&1"
