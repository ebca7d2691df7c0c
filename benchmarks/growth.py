"""How a dry run grows with the number of shards: processor seconds and memory of `snakemake -n`.

By `python -m benchmarks.growth`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import page
from ddrep.config import Experiment
from ddrep.runs import all_shards

REPO = Path(__file__).resolve().parents[1]
SHARDS = (11, 111, 1111)
"""In 1x; there are more in all: 7x of `ours`, and 1x of the sources that figures want."""


METER = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)"""
"""In a process of its own, for a child's peak counts from its parent's memory on."""


def settings(shards: int) -> dict[str, Any]:
    """Over those of config.yaml."""
    return {
        "experiment": "growth",
        "parts": ["augmentation"],
        "synthesis": {"per_class": shards, "shards_per_scale": shards},
        "table3": {"sources": ["ours"]},
        "table4": [{"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 7]}],
    }


def dry_run(experiment: dict[str, Any]) -> tuple[float, float]:
    """Processor seconds, and MiB at most."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".yaml") as file:
        yaml.safe_dump(experiment, file)
        file.flush()
        call = ["-m", "snakemake", "-n", "--quiet", "all", "--snakefile", "Snakefile", "--configfile", file.name]
        done = subprocess.run([sys.executable, "-c", METER, sys.executable, *call], cwd=REPO, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode(errors="replace"))
    seconds, kibibytes = done.stdout.split()[-2:]
    return float(seconds), int(kibibytes) / 1024


def rows() -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    started, each = min(dry_run(settings(1))[0] for _ in range(3)), 0.0  # the first reads files that no cache has
    for shards in SHARDS:
        jobs = len(all_shards(Experiment.model_validate(settings(shards))))
        seconds, memory = dry_run(settings(shards))
        now = 1000 * (seconds - started) / jobs
        each = each or now
        for quantity, unit, value, ratio in (
            ("dry run", "s", seconds, 1.0), ("a shard", "ms", now, each / now), ("memory", "MiB", memory, 1.0)
        ):  # fmt: skip
            found.append(
                {"name": f"{jobs:,} shards", "reference": "the first", "quantity": quantity, "unit": unit}
                | {"value": value, "low": value, "high": value, "ratio": ratio}
            )
    return found


ABOUT = """`python -m benchmarks.growth`: config.yaml's experiment at 7x of `ours` in more and more shards, each of \
which is a job. The ratio tells whether a job costs more where there are more of them."""

if __name__ == "__main__":
    page.record("Growth of a dry run", ABOUT, rows())
