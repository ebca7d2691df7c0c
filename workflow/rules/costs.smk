SHARDS = [
    shard
    for (subset, source), scale in shards_asked(EXPERIMENT).items()
    for shard in shard_paths(subset, source, scale, SHARDS_PER_SCALE)
]
RUNS = dict.fromkeys(table3_runs(EXPERIMENT) + table4_runs(EXPERIMENT))
SUBSETS = sorted({subset for subset, _ in shards_asked(EXPERIMENT)})
JOBS = (
    [f"{stage}/subset{subset}" for stage in ("finetune", "features", "rejection") for subset in SUBSETS]
    + [f"synthesis/{shard.with_suffix('')}" for shard in SHARDS]
    + [f"classifier/{run.path.with_suffix('')}" for run in RUNS]
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
