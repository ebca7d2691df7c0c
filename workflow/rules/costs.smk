SHARDS = all_shards(EXPERIMENT)
JOBS = (
    [
        f"{stage}/subset{subset}"
        for stage in ("finetune", "features", "rejection")
        for subset in adapted_subsets(EXPERIMENT)
    ]
    + [f"synthesis/{shard.with_suffix('')}" for shard in SHARDS]
    + [f"classifier/{run.path.with_suffix('')}" for run in all_runs(EXPERIMENT)]
)


rule costs:
    input:
        attempts=[f"results/{NAME}/{shard.with_suffix('.parquet')}" for shard in SHARDS],
        benchmarks=expand("results/{experiment}/benchmarks/{job}.tsv", experiment=NAME, job=JOBS),
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
    message:
        "Costs"
    shell:
        "ddrep costs --out {output.costs:q} --threads {threads} --log {log:q} {input.attempts:q} {input.benchmarks:q}"
