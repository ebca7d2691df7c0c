# Last, of all that is there; by hand, `ddrep report` makes it of what an unfinished run has so far.
use rule job as report with:
    input:
        beside=[f"<results>/{path}" for path in runs.targets(EXPERIMENT) if path != runs.REPORT],
    output:
        out=report("<results>/report.html", caption="../report/page.rst", category="The report"),
    pathvars:
        **paths(job="report"),
    resources:
        **growing(16000, 60),
    params:
        **told("report"),
    message:
        "The report: results/{wildcards.experiment}/report.html"
