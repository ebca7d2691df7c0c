# Test is made first, validation apart from it, and train apart from both: no image is in two of them.
# The images, then the denoiser's chain, before what else is ready: what fails there fails early. The scheduler keeps no cores
# free for a job that wants several. So these take all, and when the last of them ends the chain finds all of them free.
use rule job as labelled_images with:
    input:
        "<results>/data/validation.tar",
        "<results>/data/test.tar",
    output:
        out="<shard>",
    pathvars:
        **paths(shard="<subset>/real.tar", job="data/subset{subset}"),
    priority: 200
    threads: CORES
    resources:
        **growing(8000, 60),
    params:
        **told("data", "data --split train --subset {subset}"),
    message:
        "Labelled training images, subset {wildcards.subset}"


use rule labelled_images as held_out_images with:
    input:
        branch(lambda w: w.split == "validation", then="<results>/data/test.tar"),
    pathvars:
        **paths(shard="<results>/data/{split}.tar", job="data/{split}"),
    params:
        **told("data", "data --split {split}"),
    message:
        "Images for {wildcards.split}"


use rule labelled_images as unlabelled_images with:
    input:
        "<results>/data/validation.tar",
        "<results>/data/test.tar",
        "<subset>/real.tar",
    pathvars:
        **paths(shard="<subset>/unlabelled.tar", job="data/subset{subset}-unlabelled"),
    params:
        **told("unlabelled", "data --split unlabelled --subset {subset}"),
    message:
        "Images without labels, beside subset {wildcards.subset}"
