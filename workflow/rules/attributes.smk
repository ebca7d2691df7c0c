# Guidance by an attribute (paper, 5.1): Table 1, and the claim of section 4.1 measured.
EVALUATOR = EXPERIMENT.evaluation.evaluator or "results/{experiment}/attributes/{attribute}/evaluator.safetensors"
INCEPTION = EXPERIMENT.evaluation.inception or []


rule attribute_images:
    input:
        held_out=branch(lambda w: w.part == "train", then="results/{experiment}/attributes/{attribute}/test.tar"),
    output:
        shard="results/{experiment}/attributes/{attribute}/{part}.tar",
    log:
        "results/{experiment}/logs/attribute-images/{attribute}-{part}.log",
    benchmark:
        "results/{experiment}/benchmarks/attribute-images/{attribute}-{part}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda w: tracked_json(
            "attribute-images", attribute_images_of(w.attribute, False, EXPERIMENT), EXPERIMENT
        ),
    message:
        "Images for {wildcards.part} with and without {wildcards.attribute}"
    shell:
        "ddrep attribute --stage {params.stage:q} --split {wildcards.part} --out {output.shard:q}"
        " --threads {threads} --log {log:q} {input.held_out:q}"


rule attribute_examples:
    input:
        held_out="results/{experiment}/attributes/{attribute}/test.tar",
    output:
        shard="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/examples.tar",
    log:
        "results/{experiment}/logs/attribute-images/subset{subset}/{attribute}-{run}.log",
    benchmark:
        "results/{experiment}/benchmarks/attribute-images/subset{subset}/{attribute}-{run}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda w: tracked_json("attribute-images", attribute_images_of(w.attribute, True, EXPERIMENT), EXPERIMENT),
    message:
        "The few examples of {wildcards.attribute}, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep attribute --stage {params.stage:q} --split train --subset {wildcards.subset} --run-seed {wildcards.run}"
        " --out {output.shard:q} --threads {threads} --log {log:q} {input.held_out:q}"


rule attribute_guide:
    input:
        denoiser=DENOISER,
        examples="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/examples.tar",
    output:
        guide="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{reads}.safetensors",
    log:
        "results/{experiment}/logs/guide/subset{subset}/{attribute}-{run}-{reads}.log",
    benchmark:
        "results/{experiment}/benchmarks/guide/subset{subset}/{attribute}-{run}-{reads}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda w: stage_json("guide", guide_of(EXPERIMENT.attributes, w.reads), subset_seed(SEED, int(w.subset))),
    message:
        "Training the guide of {wildcards.attribute} on {wildcards.reads}, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep guide --stage {params.stage:q} --of attribute --denoiser {input.denoiser:q} --examples {input.examples:q}"
        " --run-seed {wildcards.run} --out {output.guide:q} --threads {threads} --log {log:q}"


# Only ddim-i is steered by the guide on pixels; the guide on features steers ours and refuses for rejection.
rule attribute_shard:
    input:
        denoiser=DENOISER,
        guide=branch(
            lambda w: w.method == "ddim-i",
            then="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/pixels.safetensors",
            otherwise="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/features.safetensors",
        ),
    output:
        shard="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.tar",
        attempts="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.parquet",
    log:
        "results/{experiment}/logs/guided/subset{subset}/{attribute}-{run}-{method}-{steps}.log",
    benchmark:
        "results/{experiment}/benchmarks/guided/subset{subset}/{attribute}-{run}-{method}-{steps}.tsv"
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
            guided_of(EXPERIMENT.attributes, w.method, int(w.steps), EXPERIMENT),
            subset_seed(SEED, int(w.subset)),
        ),
    message:
        "{wildcards.attribute} by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep guide-attribute --stage {params.stage:q} --denoiser {input.denoiser:q} --guide {input.guide:q}"
        " --subset {wildcards.subset} --run-seed {wildcards.run} --pool results/{wildcards.experiment}/pool"
        " --out {output.shard:q} --threads {threads} --log {log:q}"


# Left aside when config.yaml names an evaluator.
rule attribute_evaluator:
    input:
        train="results/{experiment}/attributes/{attribute}/train.tar",
    output:
        evaluator="results/{experiment}/attributes/{attribute}/evaluator.safetensors",
    log:
        "results/{experiment}/logs/evaluator/{attribute}.log",
    benchmark:
        "results/{experiment}/benchmarks/evaluator/{attribute}.tsv"
    conda:
        "../../environment.yml"
    threads: WAITED_FOR
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        stage=lambda _: stage_json("evaluator", EXPERIMENT.evaluation.evaluator_training, SEED),
    message:
        "Training the evaluator of {wildcards.attribute}"
    shell:
        "ddrep evaluator --stage {params.stage:q} --out {output.evaluator:q} --threads {threads} --log {log:q} {input.train:q}"


rule attribute_real_features:
    input:
        shard="results/{experiment}/attributes/{attribute}/test.tar",
        evaluator=EVALUATOR,
        inception=INCEPTION,
    output:
        features="results/{experiment}/attributes/{attribute}/test.npz",
    log:
        "results/{experiment}/logs/score/{attribute}-real.log",
    benchmark:
        "results/{experiment}/benchmarks/score/{attribute}-real.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    message:
        "Features of the real images, {wildcards.attribute}"
    shell:
        "ddrep real-features --of attribute --evaluator={input.evaluator:q} --inception={input.inception:q}"
        " --out {output.features:q} --threads {threads} --log {log:q} {input.shard:q}"


rule attribute_score:
    input:
        shard="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.tar",
        attempts="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.parquet",
        evaluator=EVALUATOR,
        inception=INCEPTION,
    output:
        score="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.score.parquet",
        features="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/{method}/{steps}.npz",
    log:
        "results/{experiment}/logs/score/subset{subset}/{attribute}-{run}-{method}-{steps}.log",
    benchmark:
        "results/{experiment}/benchmarks/score/subset{subset}/{attribute}-{run}-{method}-{steps}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda w: stage_json("attribute-scores", scores_of(w.attribute, EXPERIMENT), SEED),
    message:
        "Scoring {wildcards.attribute} by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep score-attribute --stage {params.stage:q} --shard {input.shard:q} --evaluator {input.evaluator:q}"
        " --inception={input.inception:q} --method {wildcards.method} --steps {wildcards.steps} --subset {wildcards.subset}"
        " --run-seed {wildcards.run} --out {output.score:q} --features-out {output.features:q} --threads {threads} --log {log:q}"


rule robustness:
    input:
        denoiser=DENOISER,
        guides=expand(
            "results/{{experiment}}/subset{{subset}}/attributes/{{attribute}}/{{run}}/{reads}.safetensors",
            reads=["features", "pixels"],
        ),
        test="results/{experiment}/attributes/{attribute}/test.tar",
    output:
        rows="results/{experiment}/subset{subset}/attributes/{attribute}/{run}/robustness.parquet",
    log:
        "results/{experiment}/logs/robustness/subset{subset}/{attribute}-{run}.log",
    benchmark:
        "results/{experiment}/benchmarks/robustness/subset{subset}/{attribute}-{run}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda w: stage_json("robustness", EXPERIMENT.robustness, subset_seed(SEED, int(w.subset))),
    message:
        "What the guides of {wildcards.attribute} make of early estimates, subset {wildcards.subset}, seed {wildcards.run}"
    shell:
        "ddrep robustness --stage {params.stage:q} --attribute {wildcards.attribute:q} --denoiser {input.denoiser:q}"
        " --test {input.test:q} --subset {wildcards.subset} --run-seed {wildcards.run} --out {output.rows:q} --threads {threads} --log {log:q} {input.guides:q}"


rule table1:
    input:
        scores=[f"results/{NAME}/{run.score}" for run in table1_runs(EXPERIMENT)],
        features=[f"results/{NAME}/{run.features}" for run in table1_runs(EXPERIMENT)],
        real=[f"results/{NAME}/attributes/{name}/test.npz" for name in EXPERIMENT.attributes.having],
    output:
        table="results/{experiment}/tables/table1.parquet",
        summary="results/{experiment}/tables/table1-summary.parquet",
        markdown="results/{experiment}/tables/table1-summary.md",
    log:
        "results/{experiment}/logs/tables/table1.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/table1.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda _: stage_json("guidance-tables", guidance_table_of(1, EXPERIMENT), SEED),
    message:
        "Table 1"
    shell:
        "ddrep guidance-table --stage {params.stage:q} --number 1 --out {output.table:q}"
        " --summary {output.summary:q} --markdown {output.markdown:q} --threads {threads} --log {log:q}"
        " {input.scores:q} {input.real:q}"


rule robustness_table:
    input:
        rows=[f"results/{NAME}/{folder}/robustness.parquet" for folder in guide_folders(EXPERIMENT)],
    output:
        table="results/{experiment}/tables/robustness.parquet",
        markdown="results/{experiment}/tables/robustness-summary.md",
    log:
        "results/{experiment}/logs/tables/robustness.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/robustness.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    message:
        "What the guides make of early estimates"
    shell:
        "ddrep robustness-table --out {output.table:q} --markdown {output.markdown:q} --threads {threads} --log {log:q} {input.rows:q}"


rule robustness_figure:
    input:
        table="results/{experiment}/tables/robustness.parquet",
    output:
        png="results/{experiment}/figures/robustness.png",
        pdf="results/{experiment}/figures/robustness.pdf",
    log:
        "results/{experiment}/logs/figures/robustness.log",
    benchmark:
        "results/{experiment}/benchmarks/figures/robustness.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    message:
        "Figure: what the guides make of early estimates"
    shell:
        "ddrep robustness-figure --table {input.table:q} --out {output.png:q} --threads {threads} --log {log:q}"
