rule table:
    input:
        rows=lambda w: [
            f"results/{w.experiment}/{run.path}"
            for run in (table3_runs(EXPERIMENT) if w.number == "3" else table4_runs(EXPERIMENT))
        ],
        predictions=lambda w: [
            f"results/{w.experiment}/{run.predictions}"
            for run in (table3_runs(EXPERIMENT) if w.number == "3" else table4_runs(EXPERIMENT))
        ],
    output:
        table="results/{experiment}/tables/table{number}.parquet",
        summary="results/{experiment}/tables/table{number}-summary.parquet",
        markdown="results/{experiment}/tables/table{number}-summary.md",
    log:
        "results/{experiment}/logs/tables/table{number}.log",
    benchmark:
        "results/{experiment}/benchmarks/tables/table{number}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        stage=lambda _: stage_json("tables", accuracy_table_of(EXPERIMENT), SEED),
    message:
        "Table {wildcards.number}"
    shell:
        "ddrep table --stage {params.stage:q} --number {wildcards.number} --out {output.table:q}"
        " --summary {output.summary:q} --markdown {output.markdown:q} --threads {threads} --log {log:q} {input.rows:q}"
