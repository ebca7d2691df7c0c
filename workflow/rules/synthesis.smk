# The control is judged by a classifier on pixels, at a threshold of its own; the other sources by one on denoiser features.
rule synthesis:
    input:
        finetuned="results/{experiment}/subset{subset}/finetuned.safetensors",
        pretrained=DENOISER,
        judge=branch(
            lambda w: w.source == "pixel-rejection",
            then="results/{experiment}/subset{subset}/pixel-rejection/classifier.safetensors",
            otherwise="results/{experiment}/subset{subset}/rejection/classifier.safetensors",
        ),
        threshold=branch(
            lambda w: w.source == "pixel-rejection",
            then="results/{experiment}/subset{subset}/pixel-rejection/threshold.json",
        ),
    output:
        shard="results/{experiment}/subset{subset}/synthetic/{source}/{index}.tar",
        attempts="results/{experiment}/subset{subset}/synthetic/{source}/{index}.parquet",
    log:
        "results/{experiment}/logs/synthesis/subset{subset}/synthetic/{source}/{index}.log",
    benchmark:
        "results/{experiment}/benchmarks/synthesis/subset{subset}/synthetic/{source}/{index}.tsv"
    priority: 50
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        stage=lambda w: stage_json("synthesis", shard_of(w.source, EXPERIMENT), subset_seed(SEED, int(w.subset))),
    message:
        "Generating shard {wildcards.index} of {wildcards.source}, subset {wildcards.subset}"
    shell:
        "ddrep synthesize --stage {params.stage:q} --finetuned {input.finetuned:q} --pretrained {input.pretrained:q}"
        " --judge {input.judge:q} --threshold-file={input.threshold:q} --index {wildcards.index}"
        " --pool results/{wildcards.experiment}/pool --out {output.shard:q} --threads {threads} --log {log:q}"


rule shard_info:
    input:
        shards=lambda w: [
            f"results/{w.experiment}/{shard}"
            for shard in shard_paths(
                w.subset, w.source, shards_asked(EXPERIMENT)[int(w.subset), w.source], SHARDS_PER_SCALE
            )
        ],
    output:
        info="results/{experiment}/subset{subset}/synthetic/{source}/_info.json",
    log:
        "results/{experiment}/logs/info/subset{subset}/{source}.log",
    benchmark:
        "results/{experiment}/benchmarks/info/subset{subset}/{source}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        stage=lambda w: stage_json("synthesis", shard_of(w.source, EXPERIMENT), subset_seed(SEED, int(w.subset))),
    message:
        "Listing the shards of {wildcards.source}, subset {wildcards.subset}"
    shell:
        "ddrep info --stage {params.stage:q} --out {output.info:q} --threads {threads} --log {log:q} {input.shards:q}"
