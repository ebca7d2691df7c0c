"""A small experiment's results: two classes of noise, Table 4 of a known gain, a judge's report, a pool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.config import AccuracyTable, Experiment, Features, Stage, parse
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.reporting import tables
from ddrep.reporting.report.results import Results
from ddrep.runs import table4_runs
from ddrep.training.judges import extract
from tests.reporting.make_runs import write_run
from tests.reporting.make_shards import write_synthetic

DENOISER = Path(__file__).resolve().parents[3] / "ddrep/data/embedded/denoiser.safetensors"
CLASSES = ("</script><b>bag", "coat")
THRESHOLD = 0.5
RIGHT = {"real": 0.60, "real-equal-steps": 0.62, "ours": 0.80}
"""Of the test images, by source."""


def experiment() -> Experiment:
    block = {"architectures": ["resnet18"], "mix": [False], "subsets": [0], "seeds": [0, 1, 2]}
    return parse({
        "experiment": "small", "parts": ["augmentation"], "synthesis": {"threshold": THRESHOLD},
        "denoiser": {"file": {"path": str(DENOISER)}},
        "table4": [{**block, "sources": ["real", "real-equal-steps", "ours"], "scales": [0, 1]}],
    })  # fmt: skip


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 28, 28, 1), dtype=np.uint8)


def candidates() -> tuple[np.ndarray, np.ndarray]:
    """Images (classes, attempts, H, W, C), and p of them."""
    return noise(2, 6, seed=1), np.array([[0.9, 0.1, 0.8, 0.2, 0.7, 0.6], [0.3, 0.9, 0.55, 0.45, 0.95, 0.85]])


def labelled(seed: int) -> LabelledImages:
    keys = [f"{i:04d}" for i in range(8)]
    return LabelledImages(noise(8, seed=seed), np.arange(8, dtype=np.int64) % 2, keys, CLASSES)


def write_tables(folder: Path, e: Experiment, right: dict[str, float] = RIGHT) -> None:
    """Table 4 of runs that are right about these shares of 400 test images."""
    order = np.random.default_rng(0).permutation(400)
    rows = [write_run(folder, run, order < 400 * right[run.source] + run.seed) for run in table4_runs(e)]
    out, stage = folder / "tables/table4.parquet", Stage[AccuracyTable](config=AccuracyTable(resamples=200))
    files = {"summary": out.with_name("table4-summary.parquet"), "markdown": out.with_name("table4-summary.md")}
    tables.run(stage, rows=rows, number=4, judges=None, out=out, **files)


def write_samples(folder: Path) -> None:
    """Labelled and test images, their features, candidates of ours, and two pools, of which the second is theirs."""
    images, p = candidates()
    write_synthetic(folder / "subset0/synthetic/ours/00000.tar", images, p, THRESHOLD, CLASSES)
    real = labelled(2)
    real.images[0] = images[0, 0]  # a copy
    write_shard(folder / "subset0/real.tar", real)
    (folder / "data").mkdir()
    write_shard(folder / "data/test.tar", labelled(3))
    (folder / "subset0/rejection").mkdir()
    out, stage = folder / "subset0/rejection/features.safetensors", Stage[Features](config=Features(timesteps=(300,)))
    extract(stage, denoiser=DENOISER, images=folder / "subset0/real.tar", out=out)
    attempts = np.array([(c, a) for c in range(2) for a in range(6)])
    for name, pool in (("1other", noise(12, seed=4)), ("2theirs", images.reshape(12, 28, 28, 1))):
        (folder / "pool" / name / "00000").mkdir(parents=True)
        for part in (slice(0, 7), slice(7, 12)):
            file = folder / "pool" / name / f"00000/{part.start}.npz"
            np.savez_compressed(file, attempts=attempts[part], images=pool[part])


def write_judge(folder: Path, error: float = 0.3, n: int = 20) -> None:
    content = {
        "n": n, "expected_calibration_error": error, "confusion": [[9, 1], [2, 8]],
        "calibration": [{"n": n, "confidence": 0.9, "accuracy": 0.6}],
        "probes": [{"block": "up1", "timestep": 10, "C": 0.1, "cross_entropy": {"0.1": 0.5, "0.3": 0.6}}],
    }  # fmt: skip
    path = folder / "subset0/probe/report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_costs(folder: Path) -> None:
    rows = {"stage": ["synthesis", "classifier"], "job": ["a", "b"], "seconds": [30.0, 90.0],
            "max_rss_mb": [100.0, 200.0], "attempts": [12, None], "accepted": [8, None]}  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "tables/costs.parquet")


def write_all(folder: Path) -> Results:
    """The whole experiment, in results/small below `folder`."""
    results = Results(experiment(), folder / "results/small")
    write_tables(results.folder, results.experiment)
    write_samples(results.folder)
    write_judge(results.folder)
    write_costs(results.folder)
    return results
