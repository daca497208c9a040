# Integrity: `snakemake verify --config suite=demo` hashes all results of a finished suite anew.
VERIFIED = config.get("suite", "demo") + SUFFIX


localrules:
    verify,


# No inputs: what is missing shall be listed, not made.
rule verify:
    log:
        f"{RESULTS}/suites/{VERIFIED}/logs/verify.log",
    conda:
        "../envs/thanos.yaml"
    params:
        suite=f"{RESULTS}/suites/{VERIFIED}",
        runs=lambda _: run_folders(VERIFIED),
        tokens=lambda _: tokens_of_suite(VERIFIED),
    shell:
        "python -m thanos.stages.verify {params.suite:q} --runs {params.runs:q}"
        " --tokens {params.tokens:q} 2>&1 | tee {log:q}"
