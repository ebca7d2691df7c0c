# Table 4: real images and, but for the sources real and real-equal-steps, synthetic ones.
rule classifier:
    input:
        real="results/{experiment}/subset{subset}/real.tar",
        synthetic=lambda w: [
            f"results/{w.experiment}/{shard}"
            for shard in shard_paths(w.subset, w.source, int(w.scale), SHARDS_PER_SCALE)
        ],
        test="results/{experiment}/data/test.tar",
    output:
        row="results/{experiment}/subset{subset}/classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}.parquet",
        predictions="results/{experiment}/subset{subset}/classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}.predictions.parquet",
    log:
        "results/{experiment}/logs/classifier/subset{subset}/classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/classifier/subset{subset}/classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        # 100,000 images of 64x64 at 1x, which are copied while they are read
        mem_mb=lambda wildcards, attempt: (12000 + 4000 * int(wildcards.scale)) * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        stage=lambda w: stage_json(
            "classifier", training_of(w.source, w.mix == "mix", EXPERIMENT), subset_seed(SEED, int(w.subset))
        ),
    message:
        "{wildcards.architecture} on {wildcards.source} {wildcards.scale}x, {wildcards.mix}, subset {wildcards.subset},"
        " seed {wildcards.train_seed}"
    shell:
        "ddrep classify --stage {params.stage:q} --real {input.real:q} --test {input.test:q} --subset {wildcards.subset}"
        " --architecture {wildcards.architecture:q} --source {wildcards.source} --scale {wildcards.scale}"
        " --train-seed {wildcards.train_seed} --out {output.row:q} --predictions {output.predictions:q}"
        " --threads {threads} --log {log:q} {input.synthetic:q}"


# Table 3: one synthetic source alone.
rule classifier_on_synthetic_alone:
    input:
        synthetic=lambda w: [
            f"results/{w.experiment}/{shard}"
            for shard in shard_paths(w.subset, w.source, int(w.scale), SHARDS_PER_SCALE)
        ],
        test="results/{experiment}/data/test.tar",
    output:
        row="results/{experiment}/subset{subset}/cas/{architecture}/{mix}/{source}/{scale}x/{train_seed}.parquet",
        predictions="results/{experiment}/subset{subset}/cas/{architecture}/{mix}/{source}/{scale}x/{train_seed}.predictions.parquet",
    log:
        "results/{experiment}/logs/classifier/subset{subset}/cas/{architecture}/{mix}/{source}/{scale}x/{train_seed}.log",
    benchmark:
        "results/{experiment}/benchmarks/classifier/subset{subset}/cas/{architecture}/{mix}/{source}/{scale}x/{train_seed}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        stage=lambda w: stage_json(
            "classifier", training_of(w.source, w.mix == "mix", EXPERIMENT), subset_seed(SEED, int(w.subset))
        ),
    message:
        "{wildcards.architecture} on {wildcards.source} alone, subset {wildcards.subset}, seed {wildcards.train_seed}"
    shell:
        "ddrep classify --stage {params.stage:q} --test {input.test:q} --subset {wildcards.subset}"
        " --architecture {wildcards.architecture:q} --source {wildcards.source} --scale {wildcards.scale}"
        " --train-seed {wildcards.train_seed} --out {output.row:q} --predictions {output.predictions:q}"
        " --threads {threads} --log {log:q} {input.synthetic:q}"
