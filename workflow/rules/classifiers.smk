# Tables 4 and 5: labelled images and, but for the sources of these alone, others.
use rule job as classifier with:
    input:
        lambda w: shards_of(w, int(w.scale)),
        real=lambda w: f"<subset>/{SOURCES[w.source].labelled}",
        test="<results>/data/test.tar",
    output:
        out="<subset>/<row>.parquet",
        predictions="<subset>/<row>.predictions.parquet",
    pathvars:
        **paths(
            row="classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}",
            job="classifier/subset{subset}/<row>",
        ),
    resources:
        gpu=1,
        # 100,000 images of 64x64 at 1x, which are copied while they are read
        mem_mb=lambda wildcards, attempt: (12000 + 4000 * int(wildcards.scale)) * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        **told(
            "classifier",
            "classify --subset {subset} --architecture {architecture} --source {source} --scale {scale} --train-seed {train_seed}",
        ),
    message:
        "{wildcards.architecture} on {wildcards.source} {wildcards.scale}x, {wildcards.mix}, subset {wildcards.subset}, seed {wildcards.train_seed}"


# The network of a run, which no table wants: made when it is asked for by its name, by training it once more.
use rule classifier as classifier_weights with:
    output:
        weights="<subset>/<row>.safetensors",
    pathvars:
        **paths(
            row="classifiers/{architecture}/{mix}/{source}/{scale}x/{train_seed}",
            job="weights/subset{subset}/<row>",
        ),
    message:
        "The network of {wildcards.architecture} on {wildcards.source} {wildcards.scale}x, {wildcards.mix}, subset {wildcards.subset}, seed {wildcards.train_seed}"


# Table 3: one synthetic source alone.
use rule classifier as classifier_on_synthetic_alone with:
    input:
        lambda w: shards_of(w, int(w.scale)),
        test="<results>/data/test.tar",
    pathvars:
        **paths(row="cas/{architecture}/{mix}/{source}/{scale}x/{train_seed}", job="classifier/subset{subset}/<row>"),
    resources:
        **on_gpu(16000, 240),
    message:
        "{wildcards.architecture} on {wildcards.source} alone, subset {wildcards.subset}, seed {wildcards.train_seed}"
