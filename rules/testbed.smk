# The embedded testbed: items of its zero-shot task, and its models from the corpus up.


rule continuations:
    output:
        directory(ITEMS),
    log:
        f"{ITEMS}-logs/continuations.log",
    benchmark:
        f"{ITEMS}-logs/continuations.tsv"
    conda:
        "../envs/thanos.yaml"
    params:
        source=code("continuations"),
    shell:
        "python -m thanos.stages.continuations --output {output:q} > {log:q} 2>&1"


# Not part of any suite: about an hour per model. The shipped models were made by this command.
rule testbed_model:
    output:
        directory(f"{RESULTS}/testbed/models/{{testbed_model}}"),
    log:
        f"{RESULTS}/testbed/models-logs/{{testbed_model}}.log",
    benchmark:
        f"{RESULTS}/testbed/models-logs/{{testbed_model}}.tsv"
    wildcard_constraints:
        testbed_model="doc-llama|doc-opt|doc-qwen",
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    params:
        source=code("train_testbed"),
    shell:
        "python -m thanos.stages.train_testbed {wildcards.testbed_model} --output {output:q}"
        " > {log:q} 2>&1"
