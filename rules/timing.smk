# Pruning times of single layers beside the published formulations, or of whole models:
# `snakemake timing`.
#
# Nothing else may run meanwhile, so the job asks for every core. Options:
#   timing=<name of a file under conf/timing>       cpu by default; quick=true takes quick
#   overrides="threads=1 repeats=3"                  in place of the file's values
TIMING_SUITE = config.get("timing", "quick" if SIZE == "quick" else "cpu")
TIMING = f"{RESULTS}/timing/{TIMING_SUITE}"


rule timing:
    input:
        suite=workflow.source_path(f"../conf/timing/{TIMING_SUITE}.yaml"),
    output:
        report(
            directory(TIMING),
            patterns=["{name}.html", "{name}.svg"],
            caption="../report/timing.rst",
            category="Pruning time",
        ),
    log:
        f"{TIMING}-logs/timing.log",
    benchmark:
        f"{TIMING}-logs/timing.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: all_cores
    params:
        source=code("timing"),
        overrides=OVERRIDES,
    shell:
        "python -m thanos.stages.timing {input.suite:q} {params.overrides:q}"
        " --output {output:q} > {log:q} 2>&1"
