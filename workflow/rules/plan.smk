# What the experiment will make and cost. Without an output, so that it is said whenever it is asked for.
rule plan:
    log:
        f"results/{NAME}/logs/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: WAITED_FOR
    resources:
        **on_gpu(8000, 20),
    params:
        experiment=lambda _: EXPERIMENT.model_dump_json(),
        cores=CORES,
    message:
        "What {NAME} will cost"
    shell:
        'asked=$(mktemp) && trap "rm -f ${{asked@Q}}" EXIT && printf %s {params.experiment:q} >"$asked" && '
        'ddrep plan --configfile "$asked" --cores {params.cores} --threads {threads} --log {log:q}'
