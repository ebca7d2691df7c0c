# Guidance by a segmentation mask (paper, 5.2): Table 2 and Figure 2.
rule mask_images:
    input:
        held_out=branch(lambda w: w.part == "oracle", then="results/{experiment}/masks/test.tar"),
    output:
        shard="results/{experiment}/masks/{part}.tar",
    log:
        "results/{experiment}/logs/masks/{part}.log",
    benchmark:
        "results/{experiment}/benchmarks/masks/{part}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 32000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        stage=lambda _: tracked_json("masks", EXPERIMENT.masks.data, EXPERIMENT),
    message:
        "Images with masks: {wildcards.part}"
    shell:
        "ddrep masks --stage {params.stage:q} --split {wildcards.part} --out {output.shard:q}"
        " --threads {threads} --log {log:q} {input.held_out:q}"


rule mask_examples:
    input:
        held_out="results/{experiment}/masks/test.tar",
    output:
        shard="results/{experiment}/subset{subset}/masks/examples.tar",
    log:
        "results/{experiment}/logs/masks/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/masks/subset{subset}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda _: tracked_json("masks", EXPERIMENT.masks.data, EXPERIMENT),
    message:
        "The few examples with masks, subset {wildcards.subset}"
    shell:
        "ddrep masks --stage {params.stage:q} --split train --subset {wildcards.subset} --out {output.shard:q}"
        " --threads {threads} --log {log:q} {input.held_out:q}"


rule mask_guide:
    input:
        denoiser=DENOISER,
        examples="results/{experiment}/subset{subset}/masks/examples.tar",
    output:
        guide="results/{experiment}/subset{subset}/masks/{run}/{reads}.safetensors",
    log:
        "results/{experiment}/logs/guide/subset{subset}/masks/{run}-{reads}.log",
    benchmark:
        "results/{experiment}/benchmarks/guide/subset{subset}/masks/{run}-{reads}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda w: stage_json("guide", guide_of(EXPERIMENT.masks, w.reads), subset_seed(SEED, int(w.subset))),
    message:
        "Training the guide of masks on {wildcards.reads}, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep guide --stage {params.stage:q} --of mask --denoiser {input.denoiser:q} --examples {input.examples:q}"
        " --run-seed {wildcards.run} --out {output.guide:q} --threads {threads} --log {log:q}"


rule mask_shard:
    input:
        denoiser=DENOISER,
        guide=branch(
            lambda w: w.method == "ddim-i",
            then="results/{experiment}/subset{subset}/masks/{run}/pixels.safetensors",
            otherwise="results/{experiment}/subset{subset}/masks/{run}/features.safetensors",
        ),
        masks="results/{experiment}/masks/test.tar",
    output:
        shard="results/{experiment}/subset{subset}/masks/{run}/{method}/{steps}.tar",
    log:
        "results/{experiment}/logs/guided/subset{subset}/masks/{run}-{method}-{steps}.log",
    benchmark:
        "results/{experiment}/benchmarks/guided/subset{subset}/masks/{run}-{method}-{steps}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        stage=lambda w: stage_json(
            "guided",
            guided_of(
                EXPERIMENT.masks,
                w.method,
                int(w.steps),
                EXPERIMENT,
                EXPERIMENT.table2.first(int(w.subset), int(w.run)),
            ),
            subset_seed(SEED, int(w.subset)),
        ),
    message:
        "Masks by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep guide-masks --stage {params.stage:q} --denoiser {input.denoiser:q} --guide {input.guide:q}"
        " --masks {input.masks:q} --subset {wildcards.subset} --run-seed {wildcards.run}"
        " --pool results/{wildcards.experiment}/pool --out {output.shard:q} --threads {threads} --log {log:q}"


# Left aside when config.yaml names a segmenter.
rule mask_segmenter:
    input:
        train="results/{experiment}/masks/oracle.tar",
    output:
        segmenter="results/{experiment}/masks/segmenter.safetensors",
    log:
        "results/{experiment}/logs/segmenter/masks.log",
    benchmark:
        "results/{experiment}/benchmarks/segmenter/masks.tsv"
    conda:
        "../../environment.yml"
    threads: WAITED_FOR
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 32000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        stage=lambda _: stage_json("segmenter", EXPERIMENT.evaluation.segmenter_training, SEED),
    message:
        "Training the oracle segmenter"
    shell:
        "ddrep segmenter --stage {params.stage:q} --out {output.segmenter:q} --threads {threads} --log {log:q} {input.train:q}"


rule mask_real_features:
    input:
        shard="results/{experiment}/masks/test.tar",
        evaluator=EXPERIMENT.evaluation.evaluator or [],
        inception=INCEPTION,
    output:
        features="results/{experiment}/masks/test.npz",
    log:
        "results/{experiment}/logs/score/masks/real.log",
    benchmark:
        "results/{experiment}/benchmarks/score/masks/real.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    message:
        "Features of the real images with masks"
    shell:
        "ddrep real-features --of mask --evaluator={input.evaluator:q} --inception={input.inception:q}"
        " --out {output.features:q} --threads {threads} --log {log:q} {input.shard:q}"


rule mask_score:
    input:
        shard="results/{experiment}/subset{subset}/masks/{run}/{method}/{steps}.tar",
        segmenter=EXPERIMENT.evaluation.segmenter or "results/{experiment}/masks/segmenter.safetensors",
        evaluator=EXPERIMENT.evaluation.evaluator or [],
        inception=INCEPTION,
    output:
        score="results/{experiment}/subset{subset}/masks/{run}/{method}/{steps}.score.parquet",
        features="results/{experiment}/subset{subset}/masks/{run}/{method}/{steps}.npz",
    log:
        "results/{experiment}/logs/score/subset{subset}/masks/{run}-{method}-{steps}.log",
    benchmark:
        "results/{experiment}/benchmarks/score/subset{subset}/masks/{run}-{method}-{steps}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    message:
        "Scoring masks by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep score-masks --shard {input.shard:q} --segmenter {input.segmenter:q} --evaluator={input.evaluator:q}"
        " --inception={input.inception:q} --method {wildcards.method} --steps {wildcards.steps} --subset {wildcards.subset}"
        " --run-seed {wildcards.run} --out {output.score:q} --features-out {output.features:q} --threads {threads} --log {log:q}"


rule table2:
    input:
        scores=[f"results/{NAME}/{run.score}" for run in table2_runs(EXPERIMENT)],
        features=[f"results/{NAME}/{run.features}" for run in table2_runs(EXPERIMENT)],
        real="results/{experiment}/masks/test.npz",
    output:
        table="results/{experiment}/tables/table2.parquet",
        summary="results/{experiment}/tables/table2-summary.parquet",
        markdown="results/{experiment}/tables/table2-summary.md",
    log:
        "results/{experiment}/logs/tables/table2.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/table2.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda _: stage_json("guidance-tables", guidance_table_of(2, EXPERIMENT), SEED),
    message:
        "Table 2"
    shell:
        "ddrep guidance-table --stage {params.stage:q} --number 2 --out {output.table:q}"
        " --summary {output.summary:q} --markdown {output.markdown:q} --threads {threads} --log {log:q}"
        " {input.scores:q} {input.real:q}"


rule figure2:
    input:
        shards=[f"results/{NAME}/{run.shard}" for run in figure2_runs(EXPERIMENT)],
    output:
        png="results/{experiment}/figures/figure2.png",
        pdf="results/{experiment}/figures/figure2.pdf",
    log:
        "results/{experiment}/logs/figures/figure2.log",
    benchmark:
        "results/{experiment}/benchmarks/figures/figure2.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda _: stage_json("figures", EXPERIMENT.figures, SEED),
    message:
        "Figure 2: images drawn for masks"
    shell:
        "ddrep figure2 --stage {params.stage:q} --out {output.png:q} --threads {threads} --log {log:q} {input.shards:q}"
