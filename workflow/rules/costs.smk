ATTEMPTS, JOBS = [], []
if "augmentation" in EXPERIMENT.parts:
    ATTEMPTS += [shard.with_suffix(".parquet") for shard in all_shards(EXPERIMENT)]
    JOBS += [
        f"{stage}/subset{subset}"
        for stage in ("finetune", "features", "rejection")
        for subset in adapted_subsets(EXPERIMENT)
    ]
    JOBS += [f"synthesis/{shard.with_suffix('')}" for shard in all_shards(EXPERIMENT)]
    JOBS += [f"classifier/{run.path.with_suffix('')}" for run in all_runs(EXPERIMENT)]
if "attributes" in EXPERIMENT.parts:
    ATTEMPTS += [run.shard.with_suffix(".parquet") for run in table1_runs(EXPERIMENT)]
    JOBS += [f"guided/{run.job}" for run in table1_runs(EXPERIMENT)]
if "masks" in EXPERIMENT.parts:
    JOBS += [f"guided/{run.job}" for run in table2_runs(EXPERIMENT)]


rule costs:
    input:
        attempts=[f"results/{NAME}/{path}" for path in ATTEMPTS],
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
