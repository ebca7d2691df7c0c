use rule job as table with:
    input:
        lambda w: [f"<results>/{run.path}" for run in runs.table_runs(w.number, EXPERIMENT)],
        judges="<results>/tables/judges.parquet",
        beside=lambda w: [f"<results>/{run.predictions}" for run in runs.table_runs(w.number, EXPERIMENT)],
    output:
        out="<results>/tables/<table>.parquet",
        summary="<results>/tables/<table>-summary.parquet",
        markdown=report("<results>/tables/<table>-summary.md", caption="../report/table.rst", category="Tables"),
    pathvars:
        **paths(table="table{number}", job="tables/table{number}"),
    resources:
        **growing(4000, 60),
    params:
        **told("tables", "table --number {number}"),
    message:
        "Table {wildcards.number}"


# How many labels a source is worth.
use rule table as labels_table with:
    input:
        [f"<results>/{run.path}" for run in runs.table_runs("5", EXPERIMENT)],
        judges="<results>/tables/judges.parquet",
        beside=[f"<results>/{run.predictions}" for run in runs.table_runs("5", EXPERIMENT)],
    pathvars:
        **paths(table="table5", job="tables/table5"),
    params:
        **told("tables", "labels-table"),
    message:
        "Table 5"


use rule job as judges_table with:
    input:
        [f"<results>/{score}" for score in runs.judge_scores(EXPERIMENT)],
    output:
        out="<results>/tables/judges.parquet",
        markdown="<results>/tables/judges-summary.md",
    pathvars:
        **paths(job="tables/judges"),
    resources:
        **growing(2000, 20),
    params:
        **told("judges-table"),
    message:
        "What the judges know"


use rule job as copies with:
    input:
        lambda w: [f"<results>/{shard}" for shard in runs.first_shards(w.subset, EXPERIMENT)],
        denoiser=DENOISER,
        labelled="<subset>/real.tar",
        validation="<results>/data/validation.tar",
        test="<results>/data/test.tar",
    output:
        out="<subset>/copies.parquet",
    pathvars:
        **paths(job="copies/subset{subset}"),
    params:
        **told("copies", "copies --subset {subset}"),
    message:
        "Near copies of labelled images, subset {wildcards.subset}"


use rule judges_table as copies_table with:
    input:
        [f"<results>/subset{of}/copies.parquet" for of in runs.compared_sets(EXPERIMENT)],
    output:
        out="<results>/tables/copies.parquet",
        markdown="<results>/tables/copies-summary.md",
    pathvars:
        **paths(job="tables/copies"),
    params:
        **told("copies-table"),
    message:
        "Near copies of labelled images"


use rule table as table1 with:
    input:
        [f"<results>/{run.score}" for run in runs.table1_runs(EXPERIMENT)],
        [f"<results>/attributes/{name}/test.npz" for name in EXPERIMENT.attributes.having],
        beside=[f"<results>/{run.features}" for run in runs.table1_runs(EXPERIMENT)],
    pathvars:
        **paths(table="table1", job="tables/table1"),
    resources:
        **growing(8000, 120),
    params:
        **told("guidance-tables", "guidance-table --number {number}", number=1),
    message:
        "Table 1"


use rule table1 as table2 with:
    input:
        [f"<results>/{run.score}" for run in runs.table2_runs(EXPERIMENT)],
        "<results>/masks/test.npz",
        beside=[f"<results>/{run.features}" for run in runs.table2_runs(EXPERIMENT)],
    pathvars:
        **paths(table="table2", job="tables/table2"),
    params:
        **told("guidance-tables", "guidance-table --number {number}", number=2),
    message:
        "Table 2"


use rule job as robustness_table with:
    input:
        [*dict.fromkeys(f"<results>/{run.folder}/robustness.parquet" for run in runs.table1_runs(EXPERIMENT))],
    output:
        out="<results>/tables/robustness.parquet",
        markdown=report("<results>/tables/robustness-summary.md", caption="../report/table.rst", category="Tables"),
    pathvars:
        **paths(job="tables/robustness"),
    resources:
        **growing(2000, 20),
    params:
        **told("robustness-table"),
    message:
        "What the guides make of early estimates"
