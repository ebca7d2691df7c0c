use rule job as features with:
    input:
        denoiser=DENOISER,
        images="<subset>/real.tar",
    output:
        out="<subset>/rejection/features.safetensors",
    pathvars:
        **paths(job="features/subset{subset}"),
    priority: 80
    resources:
        **on_gpu(16000, 120),
    params:
        **told("features"),
    message:
        "Reading the denoiser's features of the labelled images, subset {wildcards.subset}"


use rule job as rejection with:
    input:
        features="<subset>/rejection/features.safetensors",
        train="<subset>/real.tar",
    output:
        out="<subset>/<judge>/classifier.safetensors",
        report="<subset>/<judge>/report.json",
    pathvars:
        **paths(judge="rejection", job="rejection/subset{subset}"),
    priority: 80
    resources:
        **on_gpu(16000, 240),
    params:
        **told("rejection"),
    message:
        "Training the rejection classifier, subset {wildcards.subset}"


use rule rejection as pixel_rejection with:
    input:
        train="<subset>/real.tar",
    pathvars:
        **paths(judge="pixel-rejection", job="pixel-rejection/subset{subset}"),
    resources:
        **on_gpu(8000, 240),
    params:
        **told("pixel-rejection"),
    message:
        "Training the control on pixels, subset {wildcards.subset}"


use rule rejection as probe with:
    input:
        denoiser=DENOISER,
        train="<subset>/real.tar",
    pathvars:
        **paths(judge="probe", job="probe/subset{subset}"),
    params:
        **told("probe"),
    message:
        "Training the judge of probes, subset {wildcards.subset}"


use rule rejection as pixel_threshold with:
    input:
        finetuned="<subset>/finetuned.safetensors",
        pretrained=DENOISER,
        judge="<subset>/rejection/classifier.safetensors",
        pixel_judge="<subset>/pixel-rejection/classifier.safetensors",
        grid=lambda w: grid_asked("pixel-rejection"),
    output:
        out="<subset>/pixel-rejection/threshold.json",
    pathvars:
        **paths(job="pixel-threshold/subset{subset}"),
    threads: WAITED_FOR
    params:
        **told("pixel-threshold", "pixel-threshold --pool results/{experiment}/pool"),
    message:
        "Choosing the threshold at which the control accepts as many, subset {wildcards.subset}"


# What a judge knows by itself, for the tables: no test image has a part in any choice.
use rule job as judge_score with:
    input:
        judge="<subset>/{judge}/classifier.safetensors",
        denoiser=DENOISER,
        test="<results>/data/test.tar",
    output:
        out="<subset>/{judge}/test.parquet",
    pathvars:
        **paths(job="score-judge/subset{subset}/{judge}"),
    params:
        **told("judge-score", "score-judge --name {judge} --subset {subset}"),
    message:
        "What the judge {wildcards.judge} knows, subset {wildcards.subset}"


use rule job as soft_labels with:
    input:
        images="<subset>/real.tar",
        denoiser=DENOISER,
        judge="<subset>/{judge}/classifier.safetensors",
    output:
        out="<subset>/{judge}/real.tar",
    pathvars:
        **paths(job="label/subset{subset}/{judge}"),
    params:
        **told("label"),
    message:
        "The labelled images with the probabilities of {wildcards.judge}, subset {wildcards.subset}"
