rule costs:
    input:
        attempts=[f"results/{NAME}/{path}" for path in cost_attempts(EXPERIMENT)],
        benchmarks=expand("results/{experiment}/benchmarks/{job}.tsv", experiment=NAME, job=cost_jobs(EXPERIMENT)),
    output:
        costs="results/{experiment}/tables/costs.parquet",
    log:
        "results/{experiment}/logs/tables/costs.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda _: stage_json("costs", Section(), SEED),
    message:
        "Costs"
    shell:
        "ddrep costs --stage {params.stage:q} --out {output.costs:q} --threads {threads} --log {log:q} {input.attempts:q} {input.benchmarks:q}"
