"""What the scheduler recorded of its jobs: sacct's rows, and the devices that each job was given."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

DEVICES = Path("/var/lib/ddrep-cluster/gpus.log")
"""Written by the cluster's Prolog, before each job: JOB NODE DEVICES."""
FIELDS = "JobIDRaw,State,Start,End,NodeList,Timelimit,AllocTRES,Comment"


@dataclass(frozen=True)
class Record:
    """A SLURM job. It held `devices` of `node` from `start` to `end`."""

    id: str
    state: str
    start: datetime
    end: datetime
    node: str
    limit: str
    gpus: int
    devices: tuple[str, ...]
    rule: str


def records(name: str) -> list[Record]:
    """The jobs of that name that were started, in the order of their starts."""
    command = ["sacct", "-X", "-n", "-P", "--starttime=now-1days", f"--name={name}", f"--format={FIELDS}"]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    devices = dict(re.findall(r"^(\d+) \S+ ?(\S*)$", DEVICES.read_text(), re.M))
    cells = [row.split("|") for row in rows]
    found = [_record(row, devices) for row in cells if row[2] not in ("None", "Unknown")]
    return sorted(found, key=lambda record: record.start)


def _record(cells: list[str], devices: dict[str, str]) -> Record:
    job, state, start, end, node, limit, tres, comment = cells
    gpus = re.search(r"gres/gpu=(\d+)", tres)
    given = tuple(device for device in devices.get(job, "").split(",") if device)
    times = datetime.fromisoformat(start), datetime.fromisoformat(end)
    rule = re.sub("^rule_|^group_|_wildcards_.*", "", comment)
    # The state of a cancelled job is "CANCELLED by 0".
    return Record(job, state.split()[0], *times, node, limit, int(gpus[1]) if gpus else 0, given, rule)


def most_at_once(jobs: list[Record]) -> int:
    """GPUs in use at the busiest time. A GPU given back in a second may be taken in that second."""
    return max(sum(job.gpus for job in jobs if job.start <= at.start < job.end) for at in jobs)


def shared_devices(jobs: list[Record]) -> list[tuple[Record, Record]]:
    """Pairs of jobs that held one device at one time."""
    return [
        (a, b)
        for i, a in enumerate(jobs)
        for b in jobs[i + 1 :]
        if a.node == b.node and set(a.devices) & set(b.devices) and b.start < a.end and a.start < b.end
    ]
