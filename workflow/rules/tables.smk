use rule job as table with:
    input:
        lambda w: [f"<results>/{run.path}" for run in table_runs(w.number, EXPERIMENT)],
        beside=lambda w: [f"<results>/{run.predictions}" for run in table_runs(w.number, EXPERIMENT)],
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


use rule table as table1 with:
    input:
        [f"<results>/{run.score}" for run in table1_runs(EXPERIMENT)],
        [f"<results>/attributes/{name}/test.npz" for name in EXPERIMENT.attributes.having],
        beside=[f"<results>/{run.features}" for run in table1_runs(EXPERIMENT)],
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
        [f"<results>/{run.score}" for run in table2_runs(EXPERIMENT)],
        "<results>/masks/test.npz",
        beside=[f"<results>/{run.features}" for run in table2_runs(EXPERIMENT)],
    pathvars:
        **paths(table="table2", job="tables/table2"),
    params:
        **told("guidance-tables", "guidance-table --number {number}", number=2),
    message:
        "Table 2"


use rule job as robustness_table with:
    input:
        [f"<results>/{folder}/robustness.parquet" for folder in guide_folders(EXPERIMENT)],
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
