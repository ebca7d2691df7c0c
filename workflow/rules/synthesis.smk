# The pathvars of shards of the named sources alone.
of_sources = lambda names: partial(
    constrained, CONSTRAINTS | {"source": any_of(names)}, synthetic="synthetic/{source}/{index}"
)


grid_asked = lambda source: ["<results>/grid.json"] if shard_of(source, EXPERIMENT).sampling.grid == "fitted" else []


# Left aside unless sampling.grid is fitted.
use rule job as fitted_grid with:
    input:
        denoiser=DENOISER,
    output:
        out="<results>/grid.json",
    pathvars:
        **paths(job="fit-grid"),
    priority: 70
    threads: WAITED_FOR
    resources:
        **on_gpu(16000, 120),
    params:
        **told("fit-grid"),
    message:
        "Fitting a time grid to the denoiser"


use rule job as synthesis with:
    input:
        finetuned=lambda w: ["<subset>/finetuned.safetensors"] if SOURCES[w.source].origin == "finetuned" else [],
        labelled=lambda w: ["<subset>/real.tar"] if SOURCES[w.source].origin == "pretrained" else [],
        pretrained=DENOISER,
        judge=lambda w: f"<subset>/{SOURCES[w.source].judge.classifier}",
        grid=lambda w: grid_asked(w.source),
        threshold_file=lambda w: [f"<subset>/{file}"] if (file := SOURCES[w.source].judge.threshold) else [],
    output:
        out="<shard>.tar",
        beside="<shard>.parquet",
    pathvars:
        **of_sources(of_origin("finetuned") + of_origin("pretrained"))(
            shard="<subset>/<synthetic>", job="synthesis/subset{subset}/<synthetic>"
        ),
    priority: 50
    resources:
        **on_gpu(16000, 480),
    params:
        **told("synthesis", "synthesize --index {index} --pool results/{experiment}/pool"),
    message:
        "Generating shard {wildcards.index} of {wildcards.source}, subset {wildcards.subset}"


# Real images without labels, which the judge labels.
use rule job as labelled_shard with:
    input:
        images="<subset>/unlabelled.tar",
        labelled="<subset>/real.tar",
        denoiser=DENOISER,
        judge=lambda w: f"<subset>/{SOURCES[w.source].judge.classifier}",
    output:
        out="<shard>.tar",
        beside="<shard>.parquet",
    pathvars:
        **of_sources(of_origin("unlabelled"))(shard="<subset>/<synthetic>", job="synthesis/subset{subset}/<synthetic>"),
    params:
        **told("label", "label --index {index}"),
    message:
        "Labelling part {wildcards.index} of {wildcards.source}, subset {wildcards.subset}"


use rule job as shard_info with:
    input:
        lambda w: shards_of(w, runs.shards_asked(EXPERIMENT)[w.subset, w.source]),
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
