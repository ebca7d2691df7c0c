# The control is judged by a classifier on pixels, at a threshold of its own; the other sources by one on denoiser features.
use rule job as synthesis with:
    input:
        finetuned="<subset>/finetuned.safetensors",
        pretrained=DENOISER,
        judge=lambda w: f"<subset>/{judge(w.source)}/classifier.safetensors",
        threshold_file=branch(lambda w: w.source == "pixel-rejection", then="<subset>/pixel-rejection/threshold.json"),
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
