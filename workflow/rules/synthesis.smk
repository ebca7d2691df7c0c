use rule job as synthesis with:
    input:
        finetuned="<subset>/finetuned.safetensors",
        pretrained=DENOISER,
        judge=lambda w: f"<subset>/{SOURCES[w.source].judge.classifier}",
        threshold_file=lambda w: [f"<subset>/{file}"] if (file := SOURCES[w.source].judge.threshold) else [],
    output:
        out="<subset>/synthetic/{source}/{index}.tar",
        beside="<subset>/synthetic/{source}/{index}.parquet",
    pathvars:
        **paths(job="synthesis/subset{subset}/synthetic/{source}/{index}"),
    priority: 50
    resources:
        **on_gpu(16000, 480),
    params:
        **told("synthesis", "synthesize --index {index} --pool results/{experiment}/pool"),
    message:
        "Generating shard {wildcards.index} of {wildcards.source}, subset {wildcards.subset}"


use rule job as shard_info with:
    input:
        lambda w: shards_of(w, shards_asked(EXPERIMENT)[int(w.subset), w.source]),
    output:
        out="<subset>/synthetic/{source}/_info.json",
    pathvars:
        **paths(job="info/subset{subset}/{source}"),
    resources:
        **growing(2000, 20),
    params:
        **told("synthesis", "info"),
    message:
        "Listing the shards of {wildcards.source}, subset {wildcards.subset}"
