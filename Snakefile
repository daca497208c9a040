from snakemake.utils import min_version

min_version("9.0")


report: "report/workflow.rst"


include: "rules/options.smk"
include: "rules/common.smk"
include: "rules/warm.smk"
include: "rules/models.smk"
include: "rules/tokens.smk"
include: "rules/pruning.smk"
include: "rules/recovery.smk"
include: "rules/evaluation.smk"
include: "rules/reporting.smk"
include: "rules/tracking.smk"
include: "rules/testbed.smk"
include: "rules/timing.smk"
include: "rules/mirror.smk"
include: "rules/integrity.smk"
include: "rules/regression.smk"


# One target per suite under conf/suite: `snakemake demo`, `snakemake ablation-block-size`, …
for _suite in SUITES:

    rule:
        name:
            _suite
        default_target: _suite == "demo"
        input:
            suite_products(_suite),


# All ablations of the testbed.
rule ablations:
    input:
        [suite_products(name) for name in SUITES if name.startswith("ablation-")],


# A mistyped target; Snakemake itself would not say what there is.
if workflow.is_main_process:
    with told():
        check_targets(asked_targets(sys.argv), workflow.rules, CATALOG)


onsuccess:
    for _watch in WATCHES:
        _watch.end()
    if ASKED:
        shell("python -m thanos.stages.index {RESULTS:q}")
    if ASKED and switch("show", default=True):
        shell("python -m thanos.stages.show {ASKED:q}")


onerror:
    print(
        "failed:",
        *failures([RESULTS, MIRROR_FOLDER], STARTED),
        sep="\n  ",
        file=sys.stderr,
    )
