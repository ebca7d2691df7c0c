# Test is made first, validation apart from it, and train apart from both: no image is in two of them.
# The images, then the denoiser's chain, before what else is ready: what fails there fails early. The scheduler keeps no cores
# free for a job that wants several. So these take all, and when the last of them ends the chain finds all of them free.
rule labelled_images:
    input:
        held_out=expand("results/{{experiment}}/data/{split}.tar", split=["validation", "test"]),
    output:
        shard="results/{experiment}/subset{subset}/real.tar",
    log:
        "results/{experiment}/logs/data/subset{subset}.log",
    benchmark:
        "results/{experiment}/benchmarks/data/subset{subset}.tsv"
    priority: 200
    conda:
        "../../environment.yml"
    threads: CORES
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda _: tracked_json("data", data_of(EXPERIMENT), EXPERIMENT),
    message:
        "Labelled training images, subset {wildcards.subset}"
    shell:
        "ddrep data --stage {params.stage:q} --split train --subset {wildcards.subset} --out {output.shard:q}"
        " --threads {threads} --log {log:q} {input.held_out:q}"


rule held_out_images:
    input:
        held_out=branch(lambda w: w.split == "validation", then="results/{experiment}/data/test.tar"),
    output:
        shard="results/{experiment}/data/{split}.tar",
    log:
        "results/{experiment}/logs/data/{split}.log",
    benchmark:
        "results/{experiment}/benchmarks/data/{split}.tsv"
    priority: 200
    conda:
        "../../environment.yml"
    threads: CORES
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda _: tracked_json("data", data_of(EXPERIMENT), EXPERIMENT),
    message:
        "Images for {wildcards.split}"
    shell:
        "ddrep data --stage {params.stage:q} --split {wildcards.split} --out {output.shard:q}"
        " --threads {threads} --log {log:q} {input.held_out:q}"
