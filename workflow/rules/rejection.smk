rule features:
    input:
        denoiser=DENOISER,
        images="results/{experiment}/subset{subset}/real.tar",
    output:
        features="results/{experiment}/subset{subset}/rejection/features.safetensors",
    log:
        "results/{experiment}/logs/features/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/features/subset{subset}.tsv"
    priority: 80
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        stage=lambda _: stage_json("features", EXPERIMENT.features, SEED),
    message:
        "Reading the denoiser's features of the labelled images, subset {wildcards.subset}"
    shell:
        "ddrep features --stage {params.stage:q} --denoiser {input.denoiser:q} --images {input.images:q}"
        " --out {output.features:q} --threads {threads} --log {log:q}"


rule rejection:
    input:
        features="results/{experiment}/subset{subset}/rejection/features.safetensors",
        train="results/{experiment}/subset{subset}/real.tar",
    output:
        classifier="results/{experiment}/subset{subset}/rejection/classifier.safetensors",
        report="results/{experiment}/subset{subset}/rejection/report.json",
    log:
        "results/{experiment}/logs/rejection/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/rejection/subset{subset}.tsv"
    priority: 80
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        stage=lambda w: stage_json("rejection", EXPERIMENT.rejection, subset_seed(SEED, int(w.subset))),
    message:
        "Training the rejection classifier, subset {wildcards.subset}"
    shell:
        "ddrep rejection --stage {params.stage:q} --features {input.features:q} --train {input.train:q}"
        " --out {output.classifier:q} --report {output.report:q} --threads {threads} --log {log:q}"


rule pixel_rejection:
    input:
        train="results/{experiment}/subset{subset}/real.tar",
    output:
        classifier="results/{experiment}/subset{subset}/pixel-rejection/classifier.safetensors",
        report="results/{experiment}/subset{subset}/pixel-rejection/report.json",
    log:
        "results/{experiment}/logs/pixel-rejection/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/pixel-rejection/subset{subset}.tsv"
    priority: 80
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        stage=lambda w: stage_json("pixel-rejection", EXPERIMENT.pixel_rejection, subset_seed(SEED, int(w.subset))),
    message:
        "Training the control on pixels, subset {wildcards.subset}"
    shell:
        "ddrep pixel-rejection --stage {params.stage:q} --train {input.train:q}"
        " --out {output.classifier:q} --report {output.report:q} --threads {threads} --log {log:q}"


rule pixel_threshold:
    input:
        finetuned="results/{experiment}/subset{subset}/finetuned.safetensors",
        pretrained=DENOISER,
        judge="results/{experiment}/subset{subset}/rejection/classifier.safetensors",
        pixel_judge="results/{experiment}/subset{subset}/pixel-rejection/classifier.safetensors",
    output:
        threshold="results/{experiment}/subset{subset}/pixel-rejection/threshold.json",
    log:
        "results/{experiment}/logs/pixel-threshold/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/pixel-threshold/subset{subset}.tsv"
    priority: 80
    conda:
        "../../environment.yml"
    threads: WAITED_FOR
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        stage=lambda w: stage_json(
            "pixel-threshold", shard_of("pixel-rejection", EXPERIMENT), subset_seed(SEED, int(w.subset))
        ),
    message:
        "Choosing the threshold at which the control accepts as many, subset {wildcards.subset}"
    shell:
        "ddrep pixel-threshold --stage {params.stage:q} --finetuned {input.finetuned:q} --pretrained {input.pretrained:q}"
        " --judge {input.judge:q} --pixel-judge {input.pixel_judge:q} --pool results/{wildcards.experiment}/pool"
        " --out {output.threshold:q} --threads {threads} --log {log:q}"
