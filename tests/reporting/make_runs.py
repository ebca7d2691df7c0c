"""Runs as the classifier stage writes them, with predictions of a known accuracy."""

from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.runs import Run


def write_run(root: Path, run: Run, right: np.ndarray, *, per_scale: int = 500, n_real: int = 500) -> Path:
    """right: bool (images,), whether the run is right about a test image. Returns the row's path."""
    labels = np.arange(len(right)) % 10
    predictions = pd.DataFrame(
        {
            "key": [f"{i:06d}" for i in range(len(right))],
            "label": labels,
            "prediction": np.where(right, labels, (labels + 1) % 10),
            "p_label": np.float32(0.5),
        }
    )
    row = {
        "subset": run.subset, "architecture": run.architecture, "mix": run.mix, "source": run.source,
        "scale": run.scale, "seed": run.seed, "top1": 100 * right.mean(), "n_real": n_real if run.real else 0,
        "n_synthetic": 0 if run.source.startswith("real") else run.scale * per_scale, "epochs": 40,
        "steps": 320 * (1 + run.scale),
    }  # fmt: skip
    path = root / run.path
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_parquet(path, index=False)
    predictions.to_parquet(root / run.predictions, index=False)
    return path


GAIN = {
    "real": 0,
    "real-equal-steps": 0.2,
    "improved-ddpm": -4,
    "classifier-free": -3,
    "pixel-rejection": 1,
    "ours": 2.2,
}


def believable_right(run: Run, images: int = 5000) -> np.ndarray:
    """Accuracy that rises with scale and flattens; the same images are hard for all runs."""
    difficulty = np.random.default_rng(0).random(images)
    rng = np.random.default_rng((run.subset, run.seed, run.scale, len(run.source), run.mix, len(run.architecture)))
    subset = np.random.default_rng((1, run.subset)).normal(0, 0.4)
    gain = GAIN[run.source] * (1 - np.exp(-run.scale / 2)) + run.mix + 0.5 * run.architecture.startswith("res")
    alone = 0 if run.real else -4
    percent = 79 + subset + gain + alone + rng.normal(0, 0.4)
    return difficulty + rng.normal(0, 0.15, images) < np.quantile(
        difficulty + rng.normal(0, 0.15, images), percent / 100
    )
