# Left aside when config.yaml names a denoiser that is there already (denoiser.kind: file).
# Of a data set's images, those that are held out of the labelled ones are left out.
use rule job as pretrain with:
    input:
        ["<results>/data/validation.tar", "<results>/data/test.tar"]
        if pretrained_on_data(EXPERIMENT, EXPERIMENT.denoiser.pretrain)
        else [],
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


use rule pretrain as pretrain_diffae with:
    input:
        ["<results>/data/validation.tar", "<results>/data/test.tar"]
        if pretrained_on_data(EXPERIMENT, EXPERIMENT.generators.diffae.pretrain)
        else [],
    output:
        out="<results>/diffae.safetensors",
        grid=report("<results>/diffae.png", caption="../report/samples.rst", category="Samples"),
    pathvars:
        **paths(job="pretrain/diffae"),
    params:
        **told("pretrain-diffae"),
    message:
        "Training the DiffAE"


use rule pretrain as pretrain_d2c with:
    input:
        ["<results>/data/validation.tar", "<results>/data/test.tar"]
        if pretrained_on_data(EXPERIMENT, EXPERIMENT.generators.d2c.pretrain)
        else [],
    output:
        out="<results>/d2c.safetensors",
        grid=report("<results>/d2c.png", caption="../report/samples.rst", category="Samples"),
    pathvars:
        **paths(job="pretrain/d2c"),
    params:
        **told("pretrain-d2c"),
    message:
        "Training the D2C"


use rule pretrain as pretrain_nvae with:
    input:
        ["<results>/data/validation.tar", "<results>/data/test.tar"]
        if pretrained_on_data(EXPERIMENT, EXPERIMENT.generators.nvae.pretrain)
        else [],
    output:
        out="<results>/nvae.safetensors",
        grid=report("<results>/nvae.png", caption="../report/samples.rst", category="Samples"),
    pathvars:
        **paths(job="pretrain/nvae"),
    params:
        **told("pretrain-nvae"),
    message:
        "Training the NVAE"


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
