use rule job as figure1 with:
    input:
        [f"<results>/subset0/synthetic/{source}/00000.tar" for source in in_figure(1)],
    output:
        out=report("<results>/figures/<figure>.png", caption="../report/figure.rst", category="Figures"),
        beside="<results>/figures/<figure>.pdf",
    pathvars:
        **paths(figure="figure1", job="figures/<figure>"),
    resources:
        **growing(4000, 20),
    params:
        **told("figure1"),
    message:
        "Figure 1: one class by three sources"


use rule figure1 as figure2 with:
    input:
        [f"<results>/{run.shard}" for run in runs.figure2_runs(EXPERIMENT)],
    pathvars:
        **paths(figure="figure2", job="figures/<figure>"),
    params:
        **told("figure2"),
    message:
        "Figure 2: images drawn for masks"


use rule figure1 as figure3 with:
    input:
        shard=[f"<results>/subset0/synthetic/{source}/00000.tar" for source in in_figure(3)],
    pathvars:
        **paths(figure="figure3", job="figures/<figure>"),
    params:
        **told("figure3"),
    message:
        "Figure 3: accepted images"


use rule figure1 as figure4 with:
    input:
        table="<results>/tables/table4.parquet",
    pathvars:
        **paths(figure="figure4", job="figures/<figure>"),
    params:
        **told("figure4"),
    message:
        "Figure 4: top-1 against the scale"


use rule figure4 as figure5 with:
    input:
        table="<results>/tables/table5-summary.parquet",
    pathvars:
        **paths(figure="figure5", job="figures/<figure>"),
    params:
        **told("figure5"),
    message:
        "Figure 5: top-1 against the number of labelled images"


use rule figure1 as probe_figure with:
    input:
        [f"<results>/{report}" for report in runs.probe_reports(EXPERIMENT)],
    pathvars:
        **paths(figure="probe", job="figures/<figure>"),
    params:
        **told("probe-figure"),
    message:
        "Figure: accuracy of linear probes by block and timestep"


use rule figure4 as robustness_figure with:
    input:
        table="<results>/tables/robustness.parquet",
    pathvars:
        **paths(figure="robustness", job="figures/<figure>"),
    resources:
        **growing(2000, 20),
    params:
        **told("robustness-figure"),
    message:
        "Figure: what the guides make of early estimates"
