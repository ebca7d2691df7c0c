rule figure1:
    input:
        shards=expand(
            "results/{{experiment}}/subset0/synthetic/{source}/00000.tar",
            source=["improved-ddpm", "classifier-free", "ours"],
        ),
    output:
        png="results/{experiment}/figures/figure1.png",
        pdf="results/{experiment}/figures/figure1.pdf",
    log:
        "results/{experiment}/logs/figures/figure1.log",
    benchmark:
        "results/{experiment}/benchmarks/figures/figure1.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda _: stage_json("figures", EXPERIMENT.figures, SEED),
    message:
        "Figure 1: one class by three sources"
    shell:
        "ddrep figure1 --stage {params.stage:q} --out {output.png:q} --threads {threads} --log {log:q} {input.shards:q}"


rule figure3:
    input:
        shard="results/{experiment}/subset0/synthetic/ours/00000.tar",
    output:
        png="results/{experiment}/figures/figure3.png",
        pdf="results/{experiment}/figures/figure3.pdf",
    log:
        "results/{experiment}/logs/figures/figure3.log",
    benchmark:
        "results/{experiment}/benchmarks/figures/figure3.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda _: stage_json("figures", EXPERIMENT.figures, SEED),
    message:
        "Figure 3: accepted images"
    shell:
        "ddrep figure3 --stage {params.stage:q} --shard {input.shard:q} --out {output.png:q}"
        " --threads {threads} --log {log:q}"


rule figure4:
    input:
        table="results/{experiment}/tables/table4.parquet",
    output:
        png="results/{experiment}/figures/figure4.png",
        pdf="results/{experiment}/figures/figure4.pdf",
    log:
        "results/{experiment}/logs/figures/figure4.log",
    benchmark:
        "results/{experiment}/benchmarks/figures/figure4.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda _: stage_json("figures", EXPERIMENT.figures, SEED),
    message:
        "Figure 4: top-1 against the scale"
    shell:
        "ddrep figure4 --stage {params.stage:q} --table {input.table:q} --out {output.png:q}"
        " --threads {threads} --log {log:q}"
