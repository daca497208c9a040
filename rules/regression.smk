# Regression: `snakemake regress` compares the suite's results with the golden values, `accept`
# makes them the golden values. `--config golden=<file>` takes another file, of your own model say.
REFERENCE = "results/reference/golden.json"
GOLDEN = config.get("golden", f"{workflow.basedir}/{REFERENCE}")
REGRESSION = f"{RESULTS}/{layout.SUITES}/regression{SUFFIX}"


localrules:
    regress,
    accept,


# No output: it compares each time that it is asked to, and its reports stay when it fails.
rule regress:
    input:
        lambda _: run_results(f"regression{SUFFIX}"),
        runs=f"{REGRESSION}/{layout.RUNS}",
    log:
        table=f"{REGRESSION}/regression.txt",
        markdown=f"{REGRESSION}/regression.md",
        junit=f"{REGRESSION}/regression.xml",
    conda:
        "../envs/thanos.yaml"
    params:
        golden=str(GOLDEN),
    shell:
        "python -m thanos.stages.regress {input.runs:q} --golden {params.golden:q}"
        " --markdown {log.markdown:q} --junit {log.junit:q} 2>&1 | tee {log.table:q}"


rule accept:
    input:
        lambda _: run_results(f"regression{SUFFIX}"),
        runs=f"{REGRESSION}/{layout.RUNS}",
    log:
        f"{REGRESSION}/accept.txt",
    conda:
        "../envs/thanos.yaml"
    params:
        golden=str(GOLDEN),
        template=f"{workflow.basedir}/{REFERENCE}",
    shell:
        "python -m thanos.stages.accept {input.runs:q} --golden {params.golden:q}"
        " --template {params.template:q} 2>&1 | tee {log:q}"
