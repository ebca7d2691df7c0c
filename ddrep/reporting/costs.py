"""What each job took, and what an accepted image costs: the only table with times."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from ddrep.errors import UserError
from ddrep.files import check_readable
from ddrep.rows import Kind, read_rows, write_rows

Job = tuple[str, str]
"""Stage and job, e.g. ("synthesis", "subset0/ours/00000")."""


def run(*, files: Sequence[Path], out: Path) -> None:
    """One row a job: stage, subset, job, seconds, max_rss_mb, partial and, for drawn images, source, attempts,
    accepted, acceptance, attempts_per_accepted, seconds_per_accepted, network_evaluations_per_accepted and, with early
    refusal, early_saved, the share of the refused attempts' evaluations that it saved, and early_lost, that of the
    audited acceptable attempts which it would have refused.

    files: Snakemake's benchmarks, .../benchmarks/{stage}/{job}.tsv, with the job's log at .../logs/{stage}/{job}.log;
    and the attempts (.parquet) beside the shards, .../subset{k}/synthetic/{source}/{index}.parquet and, the method as
    source, .../subset{k}/attributes/{name}/{seed}/{method}/{steps}.parquet. A column is empty where it does not apply
    or was not measured.

    Counts are those of an undisturbed run, whatever was killed, and the evaluations of denoisers those of all attempts,
    wherever they lay. seconds are those of a job's last run. Where partial is true that was not all of the work: it
    went on from where a killed run was, or took candidates from the pool that this or another job had drawn; what they
    took is not known, and seconds_per_accepted is empty. Raises UserError.
    """
    benchmarks, attempts = ([path for path in files if path.suffix == suffix] for suffix in (".tsv", ".parquet"))
    measured = _by_job(benchmarks, _job_of_benchmark, _measured)
    counted = _by_job(attempts, _job_of_attempts, _counted)
    rows = {job: measured.get(job, {}) | counted.get(job, {}) for job in measured.keys() | counted.keys()}
    table = pd.DataFrame([_row(job, row) for job, row in sorted(rows.items())], columns=list(TYPES))
    write_rows({out: table.astype(TYPES)})


TYPES = {
    "stage": "str", "subset": "Int64", "job": "str", "seconds": "Float64", "max_rss_mb": "Float64",
    "partial": "boolean", "source": "str", "attempts": "Int64", "accepted": "Int64", "acceptance": "Float64",
    "attempts_per_accepted": "Float64", "seconds_per_accepted": "Float64",
    "network_evaluations_per_accepted": "Float64", "early_saved": "Float64", "early_lost": "Float64",
}  # fmt: skip


def _by_job(
    paths: Sequence[Path], job_of: Callable[[Path], Job], content: Callable[[Path], dict[str, Any]]
) -> dict[Job, dict[str, Any]]:
    found: dict[Job, dict[str, Any]] = {}
    for path in paths:
        if (job := job_of(path)) in found:
            raise UserError(f"{path}: the job {'/'.join(job)} was given before; give the files of one experiment, once")
        found[job] = content(path)
    return found


def _job_of_benchmark(path: Path) -> Job:
    parts = path.with_suffix("").parts
    if "benchmarks" not in parts[:-2]:
        raise UserError(f"{path}: expected .../benchmarks/STAGE/JOB.tsv, a benchmark of the workflow's")
    after = parts[len(parts) - parts[::-1].index("benchmarks") :]
    return after[0], "/".join(after[1:]).replace("/synthetic/", "/")


def _job_of_attempts(path: Path) -> Job:
    if found := re.search(r"(subset[\d-]+)/synthetic/([^/]+)/([^/]+)\.parquet$", path.as_posix()):
        return "synthesis", "/".join(found.groups())
    if found := re.search(r"(subset\d+)/attributes/([^/]+)/(\d+)/([^/]+)/(\d+)\.parquet$", path.as_posix()):
        return "guided", f"{found[1]}/{'-'.join(found.groups()[1:])}"
    raise UserError(
        f"{path}: expected .../subsetK/synthetic/SOURCE/INDEX.parquet or "
        ".../subsetK/attributes/NAME/SEED/METHOD/STEPS.parquet, a shard's attempts"
    )


def _measured(path: Path) -> dict[str, Any]:
    """Mean time and largest memory of the repeats, and whether the time is partial. Snakemake writes NA or - for what
    was too short to measure, and of a job that was forked (ddrep.warm) it sees the caller's memory alone."""
    check_readable(path, "a benchmark of Snakemake's; run the job anew")
    try:
        table = pd.read_csv(path, sep="\t", na_values=["-"])
    except (OSError, ValueError):
        raise UserError(f"{path}: expected a benchmark of Snakemake's; run the job anew") from None
    if not {"s", "max_rss"} <= set(table.columns):
        raise UserError(f"{path}: expected Snakemake's columns s and max_rss; run the job anew")
    if not all(is_numeric_dtype(table[name]) for name in ("s", "max_rss")):
        raise UserError(f"{path}: expected numbers in the columns s and max_rss; run the job anew")
    partial, peak = _logged(path)
    return {"seconds": table["s"].mean(), "max_rss_mb": np.fmax(table["max_rss"].max(), peak), "partial": partial}


RESUMED = re.compile(r"resuming at step [1-9]")
PEAK = re.compile(r"peak memory (\d+) MB")
SELECTED = re.compile(r"(\d+) candidates, (\d+) of them drawn now")
"""What ddrep.training.loop, ddrep.cli.base and ddrep.sampling.synthesis say in the log of a job's last run."""


def _logged(benchmark: Path) -> tuple[bool | None, float]:
    """What the log of the same run tells: whether the time is not that of all the work, None where there is no log; and
    the largest memory in MB, NaN likewise."""
    parts = list(benchmark.with_suffix(".log").parts)
    parts[len(parts) - 1 - parts[::-1].index("benchmarks")] = "logs"
    try:
        said = Path(*parts).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, float("nan")
    partial = bool(RESUMED.search(said)) or any(int(drawn) < int(n) for n, drawn in SELECTED.findall(said))
    return partial, max(map(float, PEAK.findall(said)), default=float("nan"))


def _counted(path: Path) -> dict[str, Any]:
    kinds: dict[str, Kind] = {"accepted": "flag", "evaluations": "whole"}
    kinds |= {"saved": "whole", "refused_at": "whole", "audited": "flag"}
    expected = "a shard's attempts with a column accepted; make the shard anew"
    table = read_rows(path, kinds, expected, optional=[*kinds][1:])  # which older ones do not have, and most
    counts = {"source": path.parent.name, "attempts": len(table), "accepted": int(table["accepted"].sum())}
    counts |= {"evaluations": int(table["evaluations"].sum())} if "evaluations" in table else {}
    return counts | (_early(table) if "refused_at" in table else {})


def _early(table: pd.DataFrame) -> dict[str, float]:
    """What early refusal saved and, by the attempts that were drawn to their end all the same, what it lost."""
    refused, audited = table[~table["accepted"]], table[table["accepted"] & table["audited"]]
    whole = (refused["saved"] + refused["evaluations"]).sum()
    return {
        "early_saved": refused["saved"].sum() / whole if whole else float("nan"),
        "early_lost": float((audited["refused_at"] > 0).mean()),
    }


def _row(job: Job, row: dict[str, Any]) -> dict[str, Any]:
    subset = re.search(r"subset(\d+)", job[1])
    whole = {"stage": job[0], "subset": int(subset[1]) if subset else None, "job": job[1], **row}
    if row.get("accepted"):
        whole["acceptance"] = row["accepted"] / row["attempts"]
        whole["attempts_per_accepted"] = row["attempts"] / row["accepted"]
        seconds = float("nan") if row.get("partial") else row.get("seconds", float("nan"))
        whole["seconds_per_accepted"] = seconds / row["accepted"]
        whole["network_evaluations_per_accepted"] = row.get("evaluations", float("nan")) / row["accepted"]
    return whole
