# Integrity: `snakemake verify --config suite=demo` says of every result of a suite whether it is
# current, stale, damaged or missing, and what in the results folder no suite asks for;
# `snakemake clean_orphans` removes that, after listing it.


localrules:
    verify,
    clean_orphans,


# No inputs: what is missing shall be listed, not made.
rule verify:
    log:
        f"{RESULTS}/{layout.SUITES}/{CHOSEN}{SUFFIX}/logs/verify.log",
    conda:
        "../envs/thanos.yaml"
    params:
        suite=CHOSEN,
        results=str(RESULTS),
        size=f"--{SIZE}" if SIZE else "",
        overrides=COMPOSED,
        folders=FOLDERS,
        clean="",
    shell:
        "python -m thanos.stages.verify {params.suite} --results {params.results:q}"
        " {params.size} {params.clean} --overrides {params.overrides:q}"
        " --config-dir {params.folders:q} 2>&1 | tee {log:q}"


use rule verify as clean_orphans with:
    log:
        f"{RESULTS}/{layout.SUITES}/{CHOSEN}{SUFFIX}/logs/clean_orphans.log",
    params:
        suite=CHOSEN,
        results=str(RESULTS),
        size=f"--{SIZE}" if SIZE else "",
        overrides=COMPOSED,
        folders=FOLDERS,
        clean="--remove-orphans",
