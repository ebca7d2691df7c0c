# Guidance by a segmentation mask (paper, 5.2): what Table 2 and Figure 2 are of.
use rule job as mask_images with:
    input:
        branch(lambda w: w.part == "oracle", then="<results>/masks/test.tar"),
    output:
        out="<shard>",
    pathvars:
        **paths(shard="<results>/masks/{part}.tar", job="masks/{part}"),
    resources:
        **growing(32000, 240),
    params:
        **told("masks", "masks --split {part}"),
    message:
        "Images with masks: {wildcards.part}"


use rule mask_images as mask_examples with:
    input:
        "<results>/masks/test.tar",
    pathvars:
        **paths(shard="<subset>/masks/examples.tar", job="masks/subset{subset}"),
    resources:
        **growing(4000, 60),
    params:
        **told("masks", "masks --split train --subset {subset}"),
    message:
        "The few examples with masks, subset {wildcards.subset}"


use rule attribute_guide as mask_guide with:
    pathvars:
        **paths(
            run="<subset>/masks/{run}",
            examples="<subset>/masks/examples.tar",
            job="guide/subset{subset}/masks/{run}-{reads}",
        ),
    resources:
        **on_gpu(16000, 120),
    params:
        **told("guide", "guide --of mask --run-seed {run}"),
    message:
        "Training the guide of masks on {wildcards.reads}, subset {wildcards.subset}, seed {wildcards.run}"


use rule attribute_shard as mask_shard with:
    input:
        denoiser=DENOISER,
        guide=lambda w: f"<run>/{METHODS[w.method].reads}.safetensors",
        masks="<results>/masks/test.tar",
    output:
        out="<drawn>.tar",
    pathvars:
        **of_methods(guided(), run="<subset>/masks/{run}", job="guided/subset{subset}/masks/{run}-{method}-{steps}"),
    params:
        **told("guided", "guide-masks --subset {subset} --run-seed {run} --pool results/{experiment}/pool"),
    message:
        "Masks by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"


# Of the methods that draw of another generator than the denoiser.
use rule attribute_latent_judge as mask_latent_judge with:
    input:
        generator=lambda w: kept(network_path(w.generator, EXPERIMENT)),
        examples="<subset>/masks/examples.tar",
    pathvars:
        **paths(run="<subset>/masks/{run}", job="guide/subset{subset}/masks/{run}-{generator}"),
    params:
        **told("latent-judge", "judge-latents --of mask --run-seed {run}"),
    message:
        "Training the judge of masks on latents, subset {wildcards.subset}, seed {wildcards.run}"


use rule mask_shard as mask_generated with:
    input:
        generator=lambda w: kept(network_path(METHODS[w.method].generator, EXPERIMENT)),
        judge=lambda w: f"<run>/{METHODS[w.method].generator}.safetensors",
        masks="<results>/masks/test.tar",
    pathvars:
        **of_methods(generated(), run="<subset>/masks/{run}", job="guided/subset{subset}/masks/{run}-{method}-{steps}"),
    params:
        **told("generated", "generate-masks --subset {subset} --run-seed {run} --pool results/{experiment}/pool"),


# Left aside when config.yaml names a segmenter.
use rule attribute_evaluator as mask_segmenter with:
    input:
        "<results>/masks/oracle.tar",
    pathvars:
        **paths(network="<results>/masks/segmenter.safetensors", job="segmenter/masks"),
    resources:
        **on_gpu(32000, 720),
    params:
        **told("segmenter"),
    message:
        "Training the oracle segmenter"


use rule attribute_real_features as mask_real_features with:
    input:
        "<results>/masks/test.tar",
        evaluator=EVALUATOR,
        inception=INCEPTION,
    pathvars:
        **paths(real="masks", job="score/masks/real"),
    params:
        **told("real-features", "real-features --of mask"),
    message:
        "Features of the real images with masks"


use rule attribute_score as mask_score with:
    input:
        shard="<drawn>.tar",
        segmenter=SEGMENTER or "<results>/masks/segmenter.safetensors",
        evaluator=EVALUATOR,
        inception=INCEPTION,
    pathvars:
        **paths(run="<subset>/masks/{run}", job="score/subset{subset}/masks/{run}-{method}-{steps}"),
    params:
        **told("mask-scores", "score-masks --method {method} --steps {steps} --subset {subset} --run-seed {run}"),
    message:
        "Scoring masks by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"
