# Evaluation: perplexity and zero-shot accuracy of the pruned, or of the dense, model.


rule evaluate:
    input:
        config=f"{RUN}/config.yaml",
        checkpoint=checkpoint_of,
        windows=windows_of,
        continuations=continuations_of,
    output:
        perplexity=f"{RUN}/perplexity.json",
        zero_shot=f"{RUN}/zero_shot.json",
    log:
        f"{RUN}/logs/evaluate.log",
    benchmark:
        f"{RUN}/logs/evaluate.tsv"
    conda:
        "../envs/thanos.yaml"
    threads: THREADS
    params:
        options=evaluation_options,
    shell:
        "python -m thanos.stages evaluate {input.config:q} {params.options}"
        " --perplexity {output.perplexity:q} --zero-shot {output.zero_shot:q} > {log:q} 2>&1"
