"""What each job took, and what an accepted image costs: the only table with times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ddrep.errors import UserError
from ddrep.files import written_whole

Job = tuple[str, str]
"""Stage and job, e.g. ("synthesis", "subset0/ours/00000")."""


def run(attempts: Sequence[Path], benchmarks: Sequence[Path], out: Path) -> None:
    """One row a job: stage, subset, job, seconds, max_rss_mb and, for drawn images, source, attempts, accepted,
    acceptance, attempts_per_accepted, seconds_per_accepted, network_evaluations_per_accepted.

    benchmarks: Snakemake's, .../benchmarks/{stage}/{job}.tsv; attempts: those beside the shards,
    .../subset{k}/synthetic/{source}/{index}.parquet and, the method as source,
    .../subset{k}/attributes/{name}/{seed}/{method}/{steps}.parquet. A column is empty where it does not apply or was
    not measured. A shard whose candidates lay in the pool took the time to select them, not to sample them; the
    evaluations of denoisers are those of all its attempts, wherever they lay. Raises UserError.
    """
    rows: dict[Job, dict[str, Any]] = {}
    for path in benchmarks:
        rows.setdefault(_job_of_benchmark(path), {}).update(_measured(path))
    for path in attempts:
        rows.setdefault(_job_of_attempts(path), {}).update(_counted(path))
    table = pd.DataFrame([_row(job, row) for job, row in sorted(rows.items())], columns=list(TYPES)).astype(TYPES)
    with written_whole(out) as (draft,):
        table.to_parquet(draft, index=False)


TYPES = {
    "stage": "str", "subset": "Int64", "job": "str", "seconds": "Float64", "max_rss_mb": "Float64", "source": "str",
    "attempts": "Int64", "accepted": "Int64", "acceptance": "Float64", "attempts_per_accepted": "Float64",
    "seconds_per_accepted": "Float64", "network_evaluations_per_accepted": "Float64",
}  # fmt: skip


def _job_of_benchmark(path: Path) -> Job:
    parts = path.with_suffix("").parts
    if "benchmarks" not in parts[:-2]:
        raise UserError(f"{path}: expected .../benchmarks/STAGE/JOB.tsv, a benchmark of the workflow's")
    after = parts[len(parts) - parts[::-1].index("benchmarks") :]
    return after[0], "/".join(after[1:]).replace("/synthetic/", "/")


def _job_of_attempts(path: Path) -> Job:
    if found := re.search(r"(subset\d+)/synthetic/([^/]+)/([^/]+)\.parquet$", path.as_posix()):
        return "synthesis", "/".join(found.groups())
    if found := re.search(r"(subset\d+)/attributes/([^/]+)/(\d+)/([^/]+)/(\d+)\.parquet$", path.as_posix()):
        return "guided", f"{found[1]}/{'-'.join(found.groups()[1:])}"
    raise UserError(
        f"{path}: expected .../subsetK/synthetic/SOURCE/INDEX.parquet or "
        ".../subsetK/attributes/NAME/SEED/METHOD/STEPS.parquet, a shard's attempts"
    )


def _measured(path: Path) -> dict[str, Any]:
    """Mean time and largest memory of the repeats; Snakemake writes NA or - for what was too short to measure."""
    try:
        table = pd.read_csv(path, sep="\t", na_values=["-"])
    except (FileNotFoundError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise UserError(f"{path}: expected a benchmark of Snakemake's; run the job anew") from None
    if not {"s", "max_rss"} <= set(table.columns):
        raise UserError(f"{path}: expected Snakemake's columns s and max_rss; run the job anew")
    return {"seconds": table["s"].mean(), "max_rss_mb": table["max_rss"].max()}


def _counted(path: Path) -> dict[str, Any]:
    try:
        table = pd.read_parquet(path)
        accepted = table["accepted"]
    except (FileNotFoundError, ValueError, KeyError):
        raise UserError(f"{path}: expected a shard's attempts with a column accepted; make the shard anew") from None
    counts = {"source": path.parent.name, "attempts": len(accepted), "accepted": int(accepted.sum())}
    return counts | ({"evaluations": int(table["evaluations"].sum())} if "evaluations" in table else {})


def _row(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    subset = re.search(r"subset(\d+)", job[1])
    whole = {"stage": job[0], "subset": int(subset[1]) if subset else None, "job": job[1], **row}
    if row.get("accepted"):
        whole["acceptance"] = row["accepted"] / row["attempts"]
        whole["attempts_per_accepted"] = row["attempts"] / row["accepted"]
        whole["seconds_per_accepted"] = row.get("seconds", float("nan")) / row["accepted"]
        whole["network_evaluations_per_accepted"] = row.get("evaluations", float("nan")) / row["accepted"]
    return whole
