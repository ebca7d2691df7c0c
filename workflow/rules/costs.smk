# Without a benchmark: it reads those of all other jobs.
rule costs:
    input:
        [f"<results>/{path}" for path in runs.cost_attempts(EXPERIMENT)],
        [f"<results>/benchmarks/{job}.tsv" for job in runs.cost_jobs(EXPERIMENT)],
    output:
        costs="<results>/tables/costs.parquet",
    log:
        "<results>/logs/tables/costs.log",
    conda:
        "../../environment.yml"
    resources:
        **growing(4000, 20),
    params:
        **told("costs"),
    message:
        "Costs"
    shell:
        "ddrep {params.words} --stage {params.stage:q} --out {output.costs:q} --threads {threads} --log {log:q} {input:q}"
