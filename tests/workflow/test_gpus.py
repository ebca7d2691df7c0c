"""A workstation with four stand-in GPUs: Snakemake caps the jobs, and each of them takes a device of its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from ddrep import gpus
from tests.workflow.tree import Tree

RUNS = {"architectures": ["resnet18"], "mix": [False], "subsets": [0], "seeds": [0, 1, 2]}
TABLE4 = [{**RUNS, "sources": ["real"], "scales": [0]}, {**RUNS, "sources": ["real-equal-steps"], "scales": [1]}]


def test_four_jobs_at_once_hold_four_devices(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {f"stand-in-{os.getpid()}-{i}" for i in range(4)}
    monkeypatch.delenv(gpus.CLAIMED, raising=False)
    monkeypatch.setenv(gpus.VISIBLE, ",".join(sorted(devices)))
    tree.configure(table4=TABLE4)
    (tree.path / "held").mkdir()
    call = "--workflow-profile workflow/profiles/local --cores 8 --resources gpu=4 --quiet all"
    done = tree.snakemake(*call.split(), path=str(Path(__file__).parent / "gpu_bin"))
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [file.read_text().split() for file in (tree.path / "held").iterdir()]
    spans = {device: sorted((float(a), float(b)) for _, d, a, b in jobs if d == device) for _, device, _, _ in jobs}
    assert set(spans) == devices
    for device, held in spans.items():
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(held)), f"two jobs at once on {device}"
    everything = [span for held in spans.values() for span in held]
    assert len(everything) > 12
    assert max(sum(a <= start < b for a, b in everything) for start, _ in everything) == 4
    for device in devices:
        (gpus.lock_folder() / device).unlink()
