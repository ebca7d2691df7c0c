rule finetune:
    input:
        denoiser=DENOISER,
        train="results/{experiment}/subset{subset}/real.tar",
        validation="results/{experiment}/data/validation.tar",
    output:
        denoiser="results/{experiment}/subset{subset}/finetuned.safetensors",
        grid="results/{experiment}/subset{subset}/finetuned.png",
        history="results/{experiment}/subset{subset}/finetuned.parquet",
    log:
        "results/{experiment}/logs/finetune/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/finetune/subset{subset}.tsv"
    priority: 100
    conda:
        "../../environment.yml"
    threads: WAITED_FOR
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        stage=lambda w: stage_json("finetune", EXPERIMENT.finetune, subset_seed(SEED, int(w.subset))),
    message:
        "Making the denoiser class-conditional, subset {wildcards.subset}"
    shell:
        "ddrep finetune --stage {params.stage:q} --denoiser {input.denoiser:q} --train {input.train:q}"
        " --validation {input.validation:q} --out {output.denoiser:q} --grid {output.grid:q} --history {output.history:q}"
        " --processes {resources.gpu} --threads {threads} --log {log:q}"
