# Left aside when config.yaml names a denoiser that is there already (denoiser.kind: file).
rule pretrain:
    output:
        denoiser="results/{experiment}/denoiser.safetensors",
        grid="results/{experiment}/denoiser.png",
    log:
        "results/{experiment}/logs/pretrain/denoiser.log",
    benchmark:
        "results/{experiment}/benchmarks/pretrain/denoiser.tsv"
    priority: 150
    conda:
        "../../environment.yml"
    threads: CORES
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        stage=lambda _: tracked_json("pretrain", EXPERIMENT.denoiser.pretrain, EXPERIMENT),
    message:
        "Training the unconditional denoiser"
    shell:
        "ddrep pretrain --stage {params.stage:q} --out {output.denoiser:q} --grid {output.grid:q}"
        " --threads {threads} --log {log:q}"
