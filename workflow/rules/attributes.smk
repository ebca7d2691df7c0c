# Guidance by an attribute (paper, 5.1): what Table 1 is of, and the claim of section 4.1 measured.
use rule job as attribute_images with:
    input:
        branch(lambda w: w.part == "train", then="<results>/attributes/{attribute}/test.tar"),
    output:
        out="<shard>",
    pathvars:
        **paths(shard="<results>/attributes/{attribute}/{part}.tar", job="attribute-images/{attribute}-{part}"),
    resources:
        **growing(8000, 60),
    params:
        **told("attribute-images", "attribute --split {part}"),
    message:
        "Images for {wildcards.part} with and without {wildcards.attribute}"


use rule attribute_images as attribute_examples with:
    input:
        "<results>/attributes/{attribute}/test.tar",
    pathvars:
        **paths(shard="<run>/examples.tar", job="attribute-images/subset{subset}/{attribute}-{run}"),
    params:
        **told("attribute-images", "attribute --split train --subset {subset} --run-seed {run}"),
    message:
        "The few examples of {wildcards.attribute}, subset {wildcards.subset}, seed {wildcards.run}"


use rule job as attribute_guide with:
    input:
        denoiser=DENOISER,
        examples="<examples>",
    output:
        out="<run>/{reads}.safetensors",
    pathvars:
        **paths(examples="<run>/examples.tar", job="guide/subset{subset}/{attribute}-{run}-{reads}"),
    params:
        **told("guide", "guide --of attribute --run-seed {run}"),
    message:
        "Training the guide of {wildcards.attribute} on {wildcards.reads}, subset {wildcards.subset}, seed {wildcards.run}"


use rule job as attribute_shard with:
    input:
        denoiser=DENOISER,
        guide=lambda w: f"<run>/{METHODS[w.method].reads}.safetensors",
    output:
        out="<drawn>.tar",
        beside="<drawn>.parquet",
    pathvars:
        **of_methods(guided(), job="guided/subset{subset}/{attribute}-{run}-{method}-{steps}"),
    resources:
        **on_gpu(16000, 480),
    params:
        **told("guided", "guide-attribute --subset {subset} --run-seed {run} --pool results/{experiment}/pool"),
    message:
        "{wildcards.attribute} by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"


# Of the methods that draw of another generator than the denoiser.
use rule job as attribute_latent_judge with:
    input:
        generator=lambda w: kept(network_path(w.generator, EXPERIMENT)),
        examples="<run>/examples.tar",
    output:
        out="<run>/{generator}.safetensors",
    pathvars:
        **paths(job="guide/subset{subset}/{attribute}-{run}-{generator}"),
    params:
        **told("latent-judge", "judge-latents --of attribute --run-seed {run}"),
    message:
        "Training the judge of {wildcards.attribute} on latents, subset {wildcards.subset}, seed {wildcards.run}"


use rule attribute_shard as attribute_generated with:
    input:
        generator=lambda w: kept(network_path(METHODS[w.method].generator, EXPERIMENT)),
        judge=lambda w: f"<run>/{METHODS[w.method].generator}.safetensors",
    pathvars:
        **of_methods(generated(), job="guided/subset{subset}/{attribute}-{run}-{method}-{steps}"),
    params:
        **told("generated", "generate-attribute --subset {subset} --run-seed {run} --pool results/{experiment}/pool"),


# Left aside when config.yaml names an evaluator.
use rule job as attribute_evaluator with:
    input:
        "<results>/attributes/{attribute}/train.tar",
    output:
        out="<network>",
    pathvars:
        **paths(network="<results>/attributes/{attribute}/evaluator.safetensors", job="evaluator/{attribute}"),
    threads: WAITED_FOR
    resources:
        **on_gpu(16000, 480),
    params:
        **told("evaluator"),
    message:
        "Training the evaluator of {wildcards.attribute}"


use rule job as attribute_real_features with:
    input:
        "<results>/<real>/test.tar",
        evaluator=EVALUATOR or "<results>/attributes/{attribute}/evaluator.safetensors",
        inception=INCEPTION,
    output:
        out="<results>/<real>/test.npz",
    pathvars:
        **paths(real="attributes/{attribute}", job="score/{attribute}-real"),
    params:
        **told("real-features", "real-features --of attribute"),
    message:
        "Features of the real images, {wildcards.attribute}"


use rule attribute_real_features as attribute_score with:
    input:
        shard="<drawn>.tar",
        beside="<drawn>.parquet",
        evaluator=EVALUATOR or "<results>/attributes/{attribute}/evaluator.safetensors",
        inception=INCEPTION,
    output:
        out="<drawn>.score.parquet",
        features_out="<drawn>.npz",
    pathvars:
        **paths(job="score/subset{subset}/{attribute}-{run}-{method}-{steps}"),
    params:
        **told(
            "attribute-scores", "score-attribute --method {method} --steps {steps} --subset {subset} --run-seed {run}"
        ),
    message:
        "Scoring {wildcards.attribute} by {wildcards.method} in {wildcards.steps} steps, subset {wildcards.subset}, seed {wildcards.run}"


use rule job as robustness with:
    input:
        "<run>/features.safetensors",
        "<run>/pixels.safetensors",
        denoiser=DENOISER,
        test="<results>/attributes/{attribute}/test.tar",
    output:
        out="<run>/robustness.parquet",
    pathvars:
        **paths(job="robustness/subset{subset}/{attribute}-{run}"),
    params:
        **told("robustness", "robustness --attribute {attribute} --subset {subset} --run-seed {run}"),
    message:
        "What the guides of {wildcards.attribute} make of early estimates, subset {wildcards.subset}, seed {wildcards.run}"
