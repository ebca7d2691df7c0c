# Of images of the data set, those held out are left out.
held_out = lambda section: (
    ["<results>/data/validation.tar", "<results>/data/test.tar"] if pretrained_on_data(EXPERIMENT, section) else []
)


# Left aside when config.yaml names a denoiser that is there already (denoiser.kind: file).
use rule job as pretrain with:
    input:
        held_out(EXPERIMENT.denoiser.pretrain),
    output:
        out="<results>/denoiser.safetensors",
        grid=report("<results>/denoiser.png", caption="../report/samples.rst", category="Samples"),
    pathvars:
        **paths(job="pretrain/denoiser"),
    priority: 150
    threads: CORES
    resources:
        **on_gpu(16000, 1440),
    params:
        **told("pretrain"),
    message:
        "Training the unconditional denoiser"


use rule pretrain as pretrain_generator with:
    input:
        lambda w: held_out(getattr(EXPERIMENT.generators, w.generator).pretrain),
    output:
        out="<results>/{generator}.safetensors",
        grid=report("<results>/{generator}.png", caption="../report/samples.rst", category="Samples"),
    pathvars:
        **paths(job="pretrain/{generator}"),
    params:
        **told("pretrain-{generator}"),
    message:
        "Training the generator {wildcards.generator}"


use rule job as finetune with:
    input:
        denoiser=DENOISER,
        train="<subset>/real.tar",
        validation="<results>/data/validation.tar",
    output:
        out="<subset>/finetuned.safetensors",
        grid=report("<subset>/finetuned.png", caption="../report/samples.rst", category="Samples"),
        history="<subset>/finetuned.parquet",
    pathvars:
        **paths(job="finetune/subset{subset}"),
    priority: 100
    threads: WAITED_FOR
    resources:
        **on_gpu(16000, 1440),
    params:
        **told("finetune", "finetune --processes {gpu}"),
    message:
        "Making the denoiser class-conditional, subset {wildcards.subset}"
