# What all rules share; it makes nothing itself. A rule adds its files and, by `told`, its stage's settings, the one param that
# Snakemake tracks, and the words of its `ddrep` command. The command's other options have the names of the files.
rule job:
    log:
        "<results>/logs/<job>.log",
    benchmark:
        "<results>/benchmarks/<job>.tsv"
    conda:
        "../../environment.yml"
    resources:
        **on_gpu(8000, 120),
    params:
        files=files,
    shell:
        "ddrep {params.words} --stage {params.stage:q} --threads {threads} --log {log:q} {params.files}"
